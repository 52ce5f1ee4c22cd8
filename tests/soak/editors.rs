//! Editors that change the configuration during the load, and the check for correct responses.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use portico_load::backend::Backend;
use portico_load::{CompletedRequest, LoadResponse};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::gateway::Gateway;
use crate::history::History;

/// History of the configuration.
pub(crate) struct ConfigurationHistory {
    /// The backend in each version of the route.
    routes: History<&'static str>,
    /// The backends with a weight in each version.
    weights: History<&'static [&'static str]>,
    endpoints: History<Vec<String>>,
    certificates: History<Vec<u8>>,
    restarts: AtomicUsize,
}

impl ConfigurationHistory {
    pub(crate) fn new() -> Self {
        ConfigurationHistory {
            routes: History::new(),
            weights: History::new(),
            endpoints: History::new(),
            certificates: History::new(),
            restarts: AtomicUsize::new(0),
        }
    }

    /// Whether this certificate was valid at some time between two instants.
    pub(crate) fn check_certificate(&self, begin: Instant, end: Instant, certificate: &[u8]) -> Result<(), String> {
        if self.certificates.any_during(begin, end, |_, shown| shown == certificate) {
            return Ok(());
        }
        Err("the certificate is not one of the configured ones".to_owned())
    }

    /// Whether the response came from a backend and rule that were configured at some time during the request.
    pub(crate) fn check_response(&self, sent: &CompletedRequest<'_>, answer: &LoadResponse) -> Result<(), String> {
        let (begin, end) = (sent.begin, sent.end);
        let number = answer.rule.parse::<usize>().ok();
        let is_right = match sent.shape.path.split('/').nth(1).unwrap_or_default() {
            "routes" => self
                .routes
                .any_during(begin, end, |version, backend| Some(version) == number && answer.backend == *backend),
            "weights" => self.weights.any_during(begin, end, |version, backends| {
                Some(version) == number && backends.contains(&answer.backend.as_str())
            }),
            "endpoints" => self.endpoints.any_during(begin, end, |_, backends| backends.contains(&answer.backend)),
            _ => answer.backend == "hasty",
        };
        if is_right { Ok(()) } else { Err("no configuration during the request leads to this backend".to_owned()) }
    }
}

pub(crate) struct Editors {
    tasks: JoinSet<(&'static str, usize)>,
    world: Arc<ConfigurationHistory>,
}

/// Number of performed changes.
pub(crate) struct EditCounts {
    pub(crate) edits: BTreeMap<&'static str, usize>,
    restarts: usize,
}

impl fmt::Display for EditCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.edits {
            writeln!(f, "{what:<12} {count:>6} edits")?;
        }
        writeln!(f, "backends     {:>6} restarts", self.restarts)
    }
}

impl Editors {
    /// Starts all editors and returns once the first version of each configuration is served.
    pub(crate) async fn start(
        gateway: &Arc<Gateway>,
        world: &Arc<ConfigurationHistory>,
        hasty: Backend,
        stop: &Arc<AtomicBool>,
    ) -> Editors {
        gateway.write("hasty.yaml", &route("hasty", 0, &[("hasty", 1)]));
        gateway.wait_for_revision("/probe-hasty", 0).await;
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

    pub(crate) async fn finish(mut self) -> EditCounts {
        let mut edits = BTreeMap::new();
        while let Some(done) = self.tasks.join_next().await {
            edits.extend([done.unwrap()]);
        }
        EditCounts { edits, restarts: self.world.restarts.load(Ordering::SeqCst) }
    }
}

struct Editor {
    gateway: Arc<Gateway>,
    world: Arc<ConfigurationHistory>,
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicUsize>,
}

impl Editor {
    /// Alternates the backend of the route.
    async fn routes(self) -> (&'static str, usize) {
        let history = &self.world.routes;
        for turn in 0.. {
            let pause = Instant::now() + PAUSE;
            let backend = ["a", "b"][turn % 2];
            let number = history.begin(backend);
            self.gateway.write("routes.yaml", &route("routes", number, &[(backend, 1)]));
            self.gateway.wait_for_revision("/probe-routes", number).await;
            history.observed(number);
            if self.is_over(turn, pause).await {
                return ("routes", turn);
            }
        }
        unreachable!("the loop ends with the load")
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
            self.gateway.wait_for_revision("/probe-weights", number).await;
            history.observed(number);
            if self.is_over(turn, pause).await {
                return ("weights", turn);
            }
        }
        unreachable!("the loop ends with the load")
    }

    /// Backends start, serve for a while, and stop like Pods: removed from the slices, not accepting, and finally
    /// closed.
    async fn endpoints(self) -> (&'static str, usize) {
        let history = &self.world.endpoints;
        let mut serving: VecDeque<(String, Backend)> = VecDeque::new();
        let mut leaving = JoinSet::new();
        for turn in 0.. {
            let pause = Instant::now() + PAUSE;
            let name = format!("pod-{turn}");
            let backend = Backend::start(([127, 0, 0, 1], 0).into(), &name).await.unwrap();
            serving.push_back((name, backend));
            // Between one and three endpoints.
            let mut gone = Vec::new();
            while serving.len() > 1 + turn % 3 {
                gone.extend(serving.pop_front());
            }
            let number = history.begin(serving.iter().map(|(name, _)| name.clone()).collect());
            let ports: Vec<u16> = serving.iter().map(|(_, backend)| backend.address.port()).collect();
            self.gateway.write("endpoints.yaml", &endpoints(number, &ports));
            self.gateway.wait_for_revision("/probe-endpoints", number).await;
            history.observed(number);
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
        unreachable!("the loop ends with the load")
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
            self.gateway.wait_for_revision("/probe-certificates", number).await;
            history.observed(number);
            if self.is_over(turn, pause).await {
                return ("certificates", turn);
            }
        }
        unreachable!("the loop ends with the load")
    }

    /// A backend that closes keep-alive connections at any time.
    async fn hang_up(self, hasty: Backend) -> (&'static str, usize) {
        for turn in 0.. {
            let pause = Instant::now() + PAUSE;
            hasty.close_idle();
            if self.is_over(turn, pause).await {
                return ("hang-ups", turn);
            }
        }
        unreachable!("the loop ends with the load")
    }

    async fn is_over(&self, turn: usize, pause: Instant) -> bool {
        if turn == 0 {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
        sleep_until(pause).await;
        self.stop.load(Ordering::SeqCst)
    }
}

/// A route for `/NAME` that sends its version to the backend, and a redirect that shows it to clients.
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

/// One file, so that it is applied atomically: a visible redirect means that the endpoints are configured.
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
    // All endpoints of a slice share its ports, and these endpoints differ in their ports only.
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

/// Pause between edits of one kind.
const PAUSE: Duration = Duration::from_millis(60);
/// Time between the end of accepting and the end of connections, as in a Pod that shuts down gracefully.
const GRACE: Duration = Duration::from_secs(1);
