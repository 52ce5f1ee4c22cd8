//! A Redis server as plugins use it: counters that all replicas share. The only file that knows the Redis client.
//!
//! ```text
//!   requests ──Ask──▶ bounded queue ──▶ task on the control side ══one connection, pipelined══▶ server
//!      ▲                                        │
//!      └───────────── oneshot ──────────────────┘
//! ```
//!
//! While the server is away every ask fails at once, so that requests do not wait for what will not come, and the task goes
//! on trying to connect.

mod config;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Script};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

pub use config::{RedisConfig, Server};

use super::consumers::{digest_of, hex};
use super::kind::{BuildCx, Invalid};
use super::services::Services;

/// A handle. The connection ends with the last one.
#[derive(Debug)]
pub struct Redis {
    asks: mpsc::Sender<Ask>,
}

/// Adds to one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    pub key: String,
    pub by: u64,
    /// When the server may forget it.
    pub expires_in: Duration,
}

/// Why there is no answer. The object's condition says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

#[derive(Debug)]
struct Ask {
    additions: Vec<Addition>,
    answer: oneshot::Sender<Vec<u64>>,
}

impl Redis {
    /// The same one for the same object and server, also after the object was changed.
    pub fn connect(server: &Server, field: &str, cx: &BuildCx<'_>) -> Arc<Redis> {
        let name = format!("{} redis {}", cx.object, server.fingerprint());
        // One server after another may be configured in the same object: the end of one is not that of another's trouble.
        let troubles = cx.state.shared(&format!("{} redis troubles", cx.object), Troubles::default);
        cx.state.shared(&name, || {
            let (asks, queue) = mpsc::channel(MOST_WAITING);
            let (services, name) = (Arc::clone(cx.services), name.clone());
            let (object, field) = (cx.object.to_owned(), format!("config.{field}"));
            let talk = Talk { server: server.clone(), name, object, field, services, troubles, is_troubled: None };
            cx.services.spawn(Box::pin(talk.run(queue)));
            Redis { asks }
        })
    }

    /// Adds to all of these counters at once, or to none, and says what they are then.
    pub async fn add(&self, additions: Vec<Addition>) -> Result<Vec<u64>, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(Ask { additions, answer }).map_err(|_| Unavailable)?;
        answered.await.map_err(|_| Unavailable)
    }
}

impl Server {
    /// Tells servers apart, and nobody what the password is.
    pub fn fingerprint(&self) -> String {
        let Server { remote, username, password, database } = self;
        let all = format!("{remote:?} {username:?} {password:?} {database}");
        hex(&digest_of(all.as_bytes()))
    }

    fn address(&self) -> String {
        format!("{}:{}", self.remote.host, self.remote.port)
    }
}

/// What is wrong with the servers of one object, by the name of the connection.
type Troubles = Mutex<BTreeMap<String, Invalid>>;

/// The task at the other end of the queue.
struct Talk {
    server: Server,
    name: String,
    object: String,
    field: String,
    services: Arc<dyn Services>,
    troubles: Arc<Troubles>,
    /// What was told last, if anything.
    is_troubled: Option<bool>,
}

/// Why a connection is no longer used.
enum End {
    Lost(String),
    /// Nobody is left who asks.
    Unwanted,
}

impl Talk {
    async fn run(mut self, mut queue: mpsc::Receiver<Ask>) {
        let mut pause = FIRST_PAUSE;
        // Whoever asks while the first attempt lasts waits for it, and so after a connection was lost; later ones do not.
        let mut is_away = false;
        loop {
            let opened = {
                let open = self.open();
                tokio::pin!(open);
                loop {
                    tokio::select! {
                        opened = &mut open => break opened,
                        // Dropping an ask is the answer that there is none.
                        ask = queue.recv(), if is_away => if ask.is_none() { return },
                    }
                }
            };
            let lost = match opened {
                Ok((connection, driver)) => {
                    self.tell(None);
                    let since = Instant::now();
                    match self.serve(connection, driver, &mut queue).await {
                        End::Unwanted => return,
                        // One that lasted is replaced at once.
                        End::Lost(error) if since.elapsed() > LONGEST_PAUSE => {
                            self.tell(Some(error));
                            (is_away, pause) = (false, FIRST_PAUSE);
                            continue;
                        }
                        End::Lost(error) => error,
                    }
                }
                Err(error) => error,
            };
            is_away = true;
            self.tell(Some(lost));
            let sleep = tokio::time::sleep(pause);
            tokio::pin!(sleep);
            loop {
                tokio::select! {
                    () = &mut sleep => break,
                    ask = queue.recv() => if ask.is_none() { return },
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn open(&self) -> Result<(MultiplexedConnection, BoxFuture<'static, ()>), String> {
        let limit = self.server.remote.timeout;
        let stream = self.services.connect(self.server.remote.clone()).await?;
        let mut info = RedisConnectionInfo::default().set_db(self.server.database.into());
        if let Some(username) = &self.server.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.server.password {
            info = info.set_password(password);
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
        let greeting = async {
            let (mut connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
            let mut driver: BoxFuture<'static, ()> = Box::pin(driver);
            // Without a login nothing has been said yet that a server could refuse.
            let ping = redis::cmd("PING");
            tokio::select! {
                () = &mut driver => {}
                pong = ping.query_async::<()>(&mut connection) => pong?,
            }
            Ok::<_, RedisError>((connection, driver))
        };
        match timeout(limit, greeting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(format!("{} refuses: {error}", self.server.address())),
            Err(_) => Err(format!("{} says nothing for {limit:?}", self.server.address())),
        }
    }

    async fn serve(
        &mut self,
        connection: MultiplexedConnection,
        mut driver: BoxFuture<'static, ()>,
        queue: &mut mpsc::Receiver<Ask>,
    ) -> End {
        let mut asked = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = &mut driver => return End::Lost(format!("{} closed the connection", self.server.address())),
                Some(result) = asked.next() => match result {
                    Ok(()) => self.tell(None),
                    Err(error) => {
                        let error: RedisError = error;
                        let said = format!("{}: {error}", self.server.address());
                        // What the server itself answers says nothing against the connection.
                        if error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error() {
                            return End::Lost(said);
                        }
                        self.tell(Some(said));
                    }
                },
                ask = queue.recv(), if asked.len() < MOST_WAITING => match ask {
                    Some(ask) => asked.push(answer(connection.clone(), ask)),
                    None => return End::Unwanted,
                },
            }
        }
    }

    fn tell(&mut self, error: Option<String>) {
        if self.is_troubled == Some(error.is_some()) {
            return;
        }
        self.is_troubled = Some(error.is_some());
        let remedy = "see to it that the server runs and can be reached, and that it takes the login";
        match &error {
            Some(error) => tracing::warn!(object = self.object, error, "Redis cannot be used"),
            None => tracing::info!(object = self.object, server = self.server.address(), "Using Redis"),
        }
        let mut troubles = self.troubles.lock();
        match error {
            Some(message) => {
                let trouble = Invalid { field: self.field.clone(), message, remedy: remedy.to_owned() };
                troubles.insert(self.name.clone(), trouble);
            }
            None => _ = troubles.remove(&self.name),
        }
        self.services.tell(&self.object, troubles.values().next().cloned());
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let mut troubles = self.troubles.lock();
        if troubles.remove(&self.name).is_some() {
            self.services.tell(&self.object, troubles.values().next().cloned());
        }
    }
}

async fn answer(mut connection: MultiplexedConnection, ask: Ask) -> Result<(), RedisError> {
    let mut adding = ADDING.prepare_invoke();
    for Addition { key, by, expires_in } in &ask.additions {
        // At least a second more than the window, so that a clock that is behind still finds what it counts.
        let seconds = expires_in.as_secs().saturating_add(1);
        adding.key(key).arg(*by).arg(seconds);
    }
    let totals: Vec<u64> = adding.invoke_async(&mut connection).await?;
    // Whoever asked may have gone.
    let _gone = ask.answer.send(totals);
    Ok(())
}

/// A script is atomic, and one command. A transaction would be five, and the client takes it badly if the first is refused.
static ADDING: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local totals = {}
        for i, key in ipairs(KEYS) do
            totals[i] = redis.call('INCRBY', key, ARGV[2 * i - 1])
            redis.call('EXPIRE', key, ARGV[2 * i])
        end
        return totals",
    )
});

/// Asks that wait, and asks that are on their way.
const MOST_WAITING: usize = 4096;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
