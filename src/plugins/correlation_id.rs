//! Gives each request an id that the endpoint sees, and the client if it is told so.
//!
//! ```yaml
//! plugin: correlation-id
//! config: {header_name: Kong-Request-ID, generator: uuid, echo_downstream: true}
//! ```

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::time::UNIX_EPOCH;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plugin::{AnswerCx, BuildCx, Invalid, Kind, Outcome, Phases, Plugin, RequestCx};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The header with the id. A request that has it already keeps its own.
    header_name: String,
    /// How ids are made.
    generator: Generator,
    /// Whether the client is told the id too, in the same header.
    echo_downstream: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { header_name: "Kong-Request-ID".to_owned(), generator: Generator::UuidCounter, echo_downstream: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum Generator {
    /// A UUID for each request.
    #[serde(rename = "uuid")]
    Uuid,
    /// A UUID for each worker and a number that rises with each request.
    #[serde(rename = "uuid#counter")]
    UuidCounter,
    /// Address, port, process, worker, number of the request and the time, joined by `-`.
    #[serde(rename = "tracker")]
    Tracker,
}

pub(crate) struct CorrelationId {
    header: HeaderName,
    generator: Generator,
    echo: bool,
}

impl Kind for CorrelationId {
    const NAME: &'static str = "correlation-id";
    const PRIORITY: i32 = 100_001;
    const PHASES: Phases = Phases::ACCESS_AND_ANSWER;
    const GUARD: bool = false;
    type Config = Config;
    type Plugin = CorrelationId;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let header = HeaderName::from_bytes(config.header_name.as_bytes()).map_err(|_| {
            let message = format!("{:?} cannot be the name of a header", config.header_name);
            vec![Invalid::new("header_name", message, "use letters, digits and `-`")]
        })?;
        Ok(CorrelationId { header, generator: config.generator, echo: config.echo_downstream })
    }
}

impl Plugin for CorrelationId {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        let id = match cx.head.headers.get(&self.header).filter(|id| !id.is_empty()) {
            Some(id) if self.echo => id.clone(),
            Some(_) => return Outcome::Next,
            None => {
                let id = match self.generator {
                    Generator::Uuid => uuid(),
                    Generator::UuidCounter => counted(),
                    Generator::Tracker => tracked(cx),
                };
                if !self.echo {
                    cx.head.headers.insert(&self.header, id);
                    return Outcome::Next;
                }
                cx.head.headers.insert(&self.header, id.clone());
                id
            }
        };
        cx.keep(id);
        Outcome::Next
    }

    fn answer(&self, cx: &mut AnswerCx<'_>) {
        if !self.echo {
            return;
        }
        // Another plugin may have answered before this one had its turn.
        let id = match cx.kept::<HeaderValue>() {
            Some(id) => id.clone(),
            None if self.generator == Generator::UuidCounter => counted(),
            None => uuid(),
        };
        cx.headers.insert(&self.header, id);
    }
}

/// What ids of one worker have in common.
struct Worker {
    id: Hyphenated,
    process: u32,
    /// How many ids it has given.
    given: Cell<u64>,
    /// Where the next ids are written: an allocation for each would cost more than the id.
    block: RefCell<BytesMut>,
}

thread_local! {
    static WORKER: Worker = Worker {
        id: Hyphenated::random(),
        process: std::process::id(),
        given: Cell::new(0),
        block: RefCell::default(),
    };
}

impl Worker {
    fn next(&self) -> u64 {
        self.given.set(self.given.get() + 1);
        self.given.get()
    }

    fn write(&self, write: impl FnOnce(&mut BytesMut)) -> HeaderValue {
        let mut block = self.block.borrow_mut();
        if block.capacity() < LONGEST {
            *block = BytesMut::with_capacity(BLOCK * LONGEST);
        }
        write(&mut block);
        HeaderValue::from_maybe_shared(block.split().freeze()).expect("digits, letters and `#-.:` are a header value")
    }
}

fn uuid() -> HeaderValue {
    WORKER.with(|worker| worker.write(|block| block.extend_from_slice(&Hyphenated::random().0)))
}

fn counted() -> HeaderValue {
    WORKER.with(|worker| {
        worker.write(|block| {
            block.extend_from_slice(&worker.id.0);
            block.extend_from_slice(b"#");
            block.extend_from_slice(itoa::Buffer::new().format(worker.next()).as_bytes());
        })
    })
}

fn tracked(cx: &RequestCx<'_>) -> HeaderValue {
    let (address, port, connection) = (cx.client.peer, cx.client.listen_port, cx.client.port);
    let time = cx.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    WORKER.with(|worker| {
        let (number, process) = (worker.next(), worker.process);
        worker.write(|block| {
            write!(block, "{address}-{port}-{process}-{connection}-{number}-{time:.3}").expect("a block grows");
        })
    })
}

/// A UUID as text.
struct Hyphenated([u8; 36]);

impl Hyphenated {
    /// Version 4.
    fn random() -> Self {
        let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
        let mut text = [b'-'; 36];
        let places = (0..36).filter(|at| ![8, 13, 18, 23].contains(at));
        for (number, place) in places.enumerate() {
            text[place] = b"0123456789abcdef"[(bits >> (124 - 4 * number)) as usize & 0xf];
        }
        Hyphenated(text)
    }
}

/// An address of IPv6 and five numbers, at most; longer ones are written all the same.
const LONGEST: usize = 128;
/// Ids of one allocation. Each keeps all of it, so not more.
const BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use http::Response;
    use serde_json::json;

    use super::*;
    use crate::plugin::Entry;
    use crate::plugin::testing::{Visit, build, chain};

    const KIND: Entry<CorrelationId> = Entry::NEW;

    fn is_uuid(text: &str) -> bool {
        let parts: Vec<usize> = text.split('-').map(str::len).collect();
        parts == [8, 4, 4, 4, 12] && text.as_bytes()[14] == b'4' && b"89ab".contains(&text.as_bytes()[19])
    }

    // kong-compat §4.7
    #[tokio::test]
    async fn each_request_has_an_id_of_its_own() {
        let chain = chain(&[(&KIND, json!({}))]);
        let (first, second) = (Visit::get("/").run(&chain).await, Visit::get("/").run(&chain).await);
        let split = |id: Option<&str>| {
            let (worker, number) = id.unwrap().split_once('#').unwrap();
            (worker.to_owned(), number.parse::<u64>().unwrap())
        };
        let (first_id, second_id) = (split(first.sent("kong-request-id")), split(second.sent("kong-request-id")));
        assert!(is_uuid(&first_id.0), "{first_id:?}");
        assert_eq!(second_id, (first_id.0, first_id.1 + 1));
        assert_eq!(first.header("kong-request-id"), None, "clients are not told unless asked");

        let chain =
            self::chain(&[(&KIND, json!({"generator": "uuid", "header_name": "X-Id", "echo_downstream": true}))]);
        let (first, second) = (Visit::get("/").run(&chain).await, Visit::get("/").run(&chain).await);
        assert!(is_uuid(first.sent("x-id").unwrap()));
        assert_ne!(first.sent("x-id"), second.sent("x-id"));
        assert_eq!(first.header("x-id"), first.sent("x-id"));

        let chain = self::chain(&[(&KIND, json!({"generator": "tracker"}))]);
        let outcome = Visit::get("/").run(&chain).await;
        let id = outcome.sent("kong-request-id").unwrap();
        let parts: Vec<&str> = id.split('-').collect();
        let process = std::process::id().to_string();
        assert_eq!(parts[..4], ["192.0.2.1", "80", &process, "40000"], "{id}");
        assert!(parts[4].parse::<u64>().is_ok() && parts[5] == "1767355200.000", "{id}");
    }

    // kong-compat §4.7
    #[tokio::test]
    async fn a_request_that_has_an_id_keeps_it() {
        let chain = chain(&[(&KIND, json!({"header_name": "X-Id", "generator": "uuid", "echo_downstream": true}))]);
        let mut visit = Visit::get("/").header("x-id", "mine");
        visit.endpoint = Response::builder().header("x-id", "the endpoint's").body(()).unwrap();
        let outcome = visit.run(&chain).await;
        assert_eq!((outcome.sent("x-id"), outcome.header("x-id")), (Some("mine"), Some("mine")));
        let outcome = Visit::get("/").header("x-id", "").run(&chain).await;
        assert!(is_uuid(outcome.sent("x-id").unwrap()), "an empty one is none");
        assert_eq!(outcome.header("x-id"), outcome.sent("x-id"));
    }

    // kong-compat §4.7
    #[tokio::test]
    async fn answers_that_came_before_its_turn_have_one_too() {
        for (generator, has_counter) in [("uuid", false), ("uuid#counter", true), ("tracker", false)] {
            let first = chain(&[
                (&Entry::<First>::NEW, json!({})),
                (&KIND, json!({"generator": generator, "echo_downstream": true})),
            ]);
            let outcome = Visit::get("/").run(&first).await;
            assert_eq!(outcome.sent("kong-request-id"), None);
            let id = outcome.header("kong-request-id").unwrap();
            assert!(is_uuid(id.split('#').next().unwrap()) && id.contains('#') == has_counter, "{id}");
        }
    }

    /// Answers before all others.
    struct First;

    impl Kind for First {
        const NAME: &'static str = "first";
        const PRIORITY: i32 = 1_000_000;
        const PHASES: Phases = Phases::ACCESS;
        const GUARD: bool = false;
        type Config = serde_json::Map<String, serde_json::Value>;
        type Plugin = First;

        fn build(_: Self::Config, _: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
            Ok(First)
        }
    }

    impl Plugin for First {
        fn access<'a>(&'a self, _: &'a mut RequestCx<'_>) -> Outcome<'a> {
            Outcome::Reply(crate::plugin::Reply::plain(http::StatusCode::FORBIDDEN, "no", "no"))
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for (config, field) in [
            (json!({"header_name": "a b"}), "config.header_name"),
            (json!({"header_name": ""}), "config.header_name"),
            (json!({"generator": "guid"}), "config.generator"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is taken"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
