//! Who changes the configuration meanwhile, and what is right at any time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use portico_load::backend::Backend;
use portico_load::{Answer, Sent};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::gateway::Gateway;
use crate::history::History;

/// What was configured when.
pub(crate) struct World {
    /// The backend of each version of the route.
    routes: History<&'static str>,
    /// The backends of each version that have a weight.
    weights: History<&'static [&'static str]>,
    endpoints: History<Vec<String>>,
    certificates: History<Vec<u8>>,
    restarts: AtomicUsize,
}

impl World {
    pub(crate) fn new() -> Self {
        World {
            routes: History::new(),
            weights: History::new(),
            endpoints: History::new(),
            certificates: History::new(),
            restarts: AtomicUsize::new(0),
        }
    }

    /// Whether this certificate was to be shown at some time meanwhile.
    pub(crate) fn inspect(&self, begin: Instant, end: Instant, certificate: &[u8]) -> Result<(), String> {
        if self.certificates.suits(begin, end, |_, shown| shown == certificate) {
            return Ok(());
        }
        Err("this certificate is not in force".to_owned())
    }

    /// Whether the answer came from a backend, through a rule, that was in force meanwhile.
    pub(crate) fn judge(&self, sent: &Sent<'_>, answer: &Answer) -> Result<(), String> {
        let (begin, end) = (sent.begin, sent.end);
        let number = answer.rule.parse::<usize>().ok();
        let is_right = match sent.shape.path.split('/').nth(1).unwrap_or_default() {
            "routes" => {
                self.routes.suits(begin, end, |version, backend| Some(version) == number && answer.backend == *backend)
            }
            "weights" => self.weights.suits(begin, end, |version, backends| {
                Some(version) == number && backends.contains(&answer.backend.as_str())
            }),
            "endpoints" => self.endpoints.suits(begin, end, |_, backends| backends.contains(&answer.backend)),
            _ => answer.backend == "hasty",
        };
        if is_right { Ok(()) } else { Err("no configuration in force meanwhile leads there".to_owned()) }
    }
}

pub(crate) struct Editors {
    tasks: JoinSet<(&'static str, usize)>,
    world: Arc<World>,
}

/// What was done.
pub(crate) struct Done {
    pub(crate) edits: BTreeMap<&'static str, usize>,
    restarts: usize,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.edits {
            writeln!(f, "{what:<12} {count:>6} edits")?;
        }
        writeln!(f, "backends     {:>6} restarts", self.restarts)
    }
}

impl Editors {
    /// Starts them all, and returns when the first version of everything is in force.
    pub(crate) async fn start(
        gateway: &Arc<Gateway>,
        world: &Arc<World>,
        hasty: Backend,
        stop: &Arc<AtomicBool>,
    ) -> Editors {
        gateway.write("hasty.yaml", &route("hasty", 0, &[("hasty", 1)]));
        gateway.until_seen("/probe-hasty", 0).await;
        let mut tasks = JoinSet::new();
        let begun = Arc::new(AtomicUsize::new(0));
        let own = || Editor {
            gateway: Arc::clone(gateway),
            world: Arc::clone(world),
            stop: Arc::clone(stop),
            begun: Arc::clone(&begun),
        };
        tasks.spawn(own().routes());
        tasks.spawn(own().weights());
        tasks.spawn(own().endpoints());
        tasks.spawn(own().certificates());
        tasks.spawn(own().hang_up(hasty));
        while begun.load(Ordering::SeqCst) < tasks.len() {
            sleep(Duration::from_millis(1)).await;
        }
        Editors { tasks, world: Arc::clone(world) }
    }

    pub(crate) async fn finish(mut self) -> Done {
        let mut edits = BTreeMap::new();
        while let Some(done) = self.tasks.join_next().await {
            edits.extend([done.unwrap()]);
        }
        Done { edits, restarts: self.world.restarts.load(Ordering::SeqCst) }
    }
}

struct Editor {
    gateway: Arc<Gateway>,
    world: Arc<World>,
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicUsize>,
}

impl Editor {
    /// The route leads to one backend and then to the other.
    async fn routes(self) -> (&'static str, usize) {
        let history = &self.world.routes;
        for turn in 0.. {
            let pause = Instant::now() + PAUSE;
            let backend = ["a", "b"][turn % 2];
            let number = history.begin(backend);
            self.gateway.write("routes.yaml", &route("routes", number, &[(backend, 1)]));
            self.gateway.until_seen("/probe-routes", number).await;
            history.seen(number);
            if self.is_over(turn, pause).await {
                return ("routes", turn);
            }
        }
        unreachable!("counting ends with the load")
    }

    async fn weights(self) -> (&'static str, usize) {
        let history = &self.world.weights;
        let versions: [(&'static [&'static str], u32, u32); 4] =
            [(&["a", "b"], 1, 1), (&["a"], 7, 0), (&["a", "b"], 90, 10), (&["b"], 0, 1)];
        for turn in 0.. {
            let pause = Instant::now() + PAUSE;
            let (backends, a, b) = versions[turn % versions.len()];
            let number = history.begin(backends);
            self.gateway.write("weights.yaml", &route("weights", number, &[("a", a), ("b", b)]));
            self.gateway.until_seen("/probe-weights", number).await;
            history.seen(number);
            if self.is_over(turn, pause).await {
                return ("weights", turn);
            }
        }
        unreachable!("counting ends with the load")
    }

    /// Backends come up, serve for a while, and go as Pods do: out of the list, deaf, and after a moment gone.
    async fn endpoints(self) -> (&'static str, usize) {
        let history = &self.world.endpoints;
        let mut serving: VecDeque<(String, Backend)> = VecDeque::new();
        let mut leaving = JoinSet::new();
        for turn in 0.. {
            let pause = Instant::now() + PAUSE;
            let name = format!("pod-{turn}");
            let backend = Backend::start(([127, 0, 0, 1], 0).into(), &name).await.unwrap();
            serving.push_back((name, backend));
            // Between one and three.
            let mut gone = Vec::new();
            while serving.len() > 1 + turn % 3 {
                gone.extend(serving.pop_front());
            }
            let number = history.begin(serving.iter().map(|(name, _)| name.clone()).collect());
            let ports: Vec<u16> = serving.iter().map(|(_, backend)| backend.address.port()).collect();
            self.gateway.write("endpoints.yaml", &endpoints(number, &ports));
            self.gateway.until_seen("/probe-endpoints", number).await;
            history.seen(number);
            self.world.restarts.fetch_add(gone.len(), Ordering::SeqCst);
            for (_, backend) in gone {
                backend.stop_accepting();
                leaving.spawn(async move {
                    sleep(GRACE).await;
                    backend.finish().await;
                });
            }
            if self.is_over(turn, pause).await {
                leaving.join_all().await;
                return ("endpoints", turn);
            }
        }
        unreachable!("counting ends with the load")
    }

    async fn certificates(self) -> (&'static str, usize) {
        let history = &self.world.certificates;
        for turn in 0.. {
            let pause = Instant::now() + PAUSE;
            let made = rcgen::generate_simple_self_signed(["soak.example".to_owned()]).unwrap();
            let number = history.begin(made.cert.der().to_vec());
            let text = secret(&made.cert.pem(), &made.signing_key.serialize_pem());
            let text = route("certificates", number, &[("a", 1)]) + &text;
            self.gateway.write("certificates.yaml", &text);
            self.gateway.until_seen("/probe-certificates", number).await;
            history.seen(number);
            if self.is_over(turn, pause).await {
                return ("certificates", turn);
            }
        }
        unreachable!("counting ends with the load")
    }

    /// A backend that closes kept connections whenever it likes.
    async fn hang_up(self, hasty: Backend) -> (&'static str, usize) {
        for turn in 0.. {
            let pause = Instant::now() + PAUSE;
            hasty.hang_up();
            if self.is_over(turn, pause).await {
                return ("hang-ups", turn);
            }
        }
        unreachable!("counting ends with the load")
    }

    async fn is_over(&self, turn: usize, pause: Instant) -> bool {
        if turn == 0 {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
        sleep_until(pause).await;
        self.stop.load(Ordering::SeqCst)
    }
}

/// A route for `/NAME` that tells its backend the version, and a redirect that tells everybody.
fn route(name: &str, version: usize, backends: &[(&str, u32)]) -> String {
    let backends: String = backends
        .iter()
        .map(|(service, weight)| format!("        - {{ name: {service}, port: 80, weight: {weight} }}\n"))
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}
spec:
  parentRefs:
    - name: soak
  hostnames: [soak.example]
  rules:
    - matches:
        - path: {{ type: PathPrefix, value: /{name} }}
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier:
            set:
              - {{ name: x-rule, value: \"{version}\" }}
      backendRefs:
{backends}    - matches:
        - path: {{ type: Exact, value: /probe-{name} }}
      filters:
        - type: RequestRedirect
          requestRedirect:
            path: {{ type: ReplaceFullPath, replaceFullPath: /revision-{version} }}
"
    )
}

fn secret(certificate: &str, key: &str) -> String {
    let (certificate, key) = (certificate.replace('\n', "\n    "), key.replace('\n', "\n    "));
    format!(
        "---
apiVersion: v1
kind: Secret
metadata:
  name: certificate
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {certificate}
  tls.key: |
    {key}
"
    )
}

/// One file, so that it is taken over as a whole: who sees the redirect knows that the endpoints are in force.
fn endpoints(version: usize, ports: &[u16]) -> String {
    let mut text = route("endpoints", version, &[("pods", 1)]);
    text += "---
apiVersion: v1
kind: Service
metadata:
  name: pods
spec:
  ports:
    - port: 80
";
    // A slice has one list of ports for all its endpoints, and ours differ in nothing else.
    for (place, port) in ports.iter().enumerate() {
        text += &format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: pods-{place}
  labels:
    kubernetes.io/service-name: pods
addressType: IPv4
ports:
  - port: {port}
endpoints:
  - addresses: [\"127.0.0.1\"]
    conditions:
      ready: true
"
        );
    }
    text
}

/// Between the edits of one kind.
const PAUSE: Duration = Duration::from_millis(60);
/// From the end of the accepting to the end of the connections, as a Pod has it that stops in order.
const GRACE: Duration = Duration::from_secs(1);
