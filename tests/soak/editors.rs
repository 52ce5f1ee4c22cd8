//! Editors that change the configuration during the load, and the checks of responses and certificates.

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
use crate::polling::until;

/// The versions of everything that the editors change.
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

    /// Whether this certificate was configured at some time between two instants.
    pub(crate) fn check_certificate(&self, begin: Instant, end: Instant, certificate: &[u8]) -> Result<(), String> {
        if self.certificates.any_during(begin, end, |_, shown| shown == certificate) {
            return Ok(());
        }
        Err("the certificate is not one of the configured ones".to_owned())
    }

    /// Whether the response came from a backend and rule that were configured at some time during the request.
    pub(crate) fn check_response(&self, sent: &CompletedRequest<'_>, response: &LoadResponse) -> Result<(), String> {
        let (begin, end) = (sent.begin, sent.end);
        let number = response.rule.parse::<usize>().ok();
        let is_right = match sent.shape.path.split('/').nth(1).unwrap_or_default() {
            "routes" => self
                .routes
                .any_during(begin, end, |version, backend| Some(version) == number && response.backend == *backend),
            "weights" => self.weights.any_during(begin, end, |version, backends| {
                Some(version) == number && backends.contains(&response.backend.as_str())
            }),
            "endpoints" => self.endpoints.any_during(begin, end, |_, backends| backends.contains(&response.backend)),
            _ => response.backend == "hasty",
        };
        if is_right { Ok(()) } else { Err("no configuration during the request leads to this backend".to_owned()) }
    }
}

pub(crate) struct Editors {
    tasks: JoinSet<(&'static str, usize)>,
    configuration: Arc<ConfigurationHistory>,
}

/// Number of performed changes.
pub(crate) struct EditCounts {
    pub(crate) edits: BTreeMap<&'static str, usize>,
    restarts: usize,
}

impl fmt::Display for EditCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.edits {
            writeln!(f, "{name:<12} {count:>6} edits")?;
        }
        writeln!(f, "backends     {:>6} restarts", self.restarts)
    }
}

impl Editors {
    /// Starts all editors and returns once the first version of each configuration is served.
    pub(crate) async fn start(
        gateway: &Arc<Gateway>,
        configuration: &Arc<ConfigurationHistory>,
        hasty: Backend,
        stop: &Arc<AtomicBool>,
    ) -> Editors {
        gateway.write("hasty.yaml", &route("hasty", 0, &[("hasty", 1)]));
        gateway.wait_for_revision("/probe-hasty", 0).await;
        let mut tasks = JoinSet::new();
        let started_editors = Arc::new(AtomicUsize::new(0));
        let new_editor = || Editor {
            gateway: Arc::clone(gateway),
            configuration: Arc::clone(configuration),
            stop: Arc::clone(stop),
            started_editors: Arc::clone(&started_editors),
        };
        tasks.spawn(new_editor().routes());
        tasks.spawn(new_editor().weights());
        tasks.spawn(new_editor().endpoints());
        tasks.spawn(new_editor().certificates());
        tasks.spawn(new_editor().close_connections(hasty));
        until("all editors have started", async || started_editors.load(Ordering::SeqCst) == tasks.len()).await;
        Editors { tasks, configuration: Arc::clone(configuration) }
    }

    pub(crate) async fn finish(mut self) -> EditCounts {
        let mut edits = BTreeMap::new();
        while let Some(editor) = self.tasks.join_next().await {
            edits.extend([editor.unwrap()]);
        }
        EditCounts { edits, restarts: self.configuration.restarts.load(Ordering::SeqCst) }
    }
}

/// What an editor needs. Its methods edit until the load ends, and return their name and number of edits.
struct Editor {
    gateway: Arc<Gateway>,
    configuration: Arc<ConfigurationHistory>,
    stop: Arc<AtomicBool>,
    started_editors: Arc<AtomicUsize>,
}

impl Editor {
    /// Alternates the backend of the route.
    async fn routes(self) -> (&'static str, usize) {
        let history = &self.configuration.routes;
        for turn in 0.. {
            let next_turn = Instant::now() + PAUSE;
            let backend = ["a", "b"][turn % 2];
            let number = history.begin(backend);
            self.gateway.write("routes.yaml", &route("routes", number, &[(backend, 1)]));
            self.gateway.wait_for_revision("/probe-routes", number).await;
            history.mark_observed(number);
            if self.pause_and_check_end(turn, next_turn).await {
                return ("routes", turn);
            }
        }
        unreachable!("the loop ends with the load")
    }

    async fn weights(self) -> (&'static str, usize) {
        let history = &self.configuration.weights;
        let versions: [(&'static [&'static str], u32, u32); 4] =
            [(&["a", "b"], 1, 1), (&["a"], 7, 0), (&["a", "b"], 90, 10), (&["b"], 0, 1)];
        for turn in 0.. {
            let next_turn = Instant::now() + PAUSE;
            let (backends, a, b) = versions[turn % versions.len()];
            let number = history.begin(backends);
            self.gateway.write("weights.yaml", &route("weights", number, &[("a", a), ("b", b)]));
            self.gateway.wait_for_revision("/probe-weights", number).await;
            history.mark_observed(number);
            if self.pause_and_check_end(turn, next_turn).await {
                return ("weights", turn);
            }
        }
        unreachable!("the loop ends with the load")
    }

    /// Backends start, serve for a while, and stop like Pods: they are removed from the EndpointSlices, stop accepting
    /// connections, and finally close them.
    async fn endpoints(self) -> (&'static str, usize) {
        let history = &self.configuration.endpoints;
        let mut serving: VecDeque<(String, Backend)> = VecDeque::new();
        let mut stopping = JoinSet::new();
        for turn in 0.. {
            let next_turn = Instant::now() + PAUSE;
            let name = format!("pod-{turn}");
            let backend = Backend::start(([127, 0, 0, 1], 0).into(), &name).await.unwrap();
            serving.push_back((name, backend));
            // Between one and three endpoints.
            let mut removed = Vec::new();
            while serving.len() > 1 + turn % 3 {
                removed.extend(serving.pop_front());
            }
            let number = history.begin(serving.iter().map(|(name, _)| name.clone()).collect());
            let ports: Vec<u16> = serving.iter().map(|(_, backend)| backend.address.port()).collect();
            self.gateway.write("endpoints.yaml", &endpoints(number, &ports));
            self.gateway.wait_for_revision("/probe-endpoints", number).await;
            history.mark_observed(number);
            self.configuration.restarts.fetch_add(removed.len(), Ordering::SeqCst);
            for (_, backend) in removed {
                backend.stop_accepting();
                stopping.spawn(async move {
                    sleep(GRACE).await; // Like a Pod that is being stopped.
                    backend.finish().await;
                });
            }
            if self.pause_and_check_end(turn, next_turn).await {
                stopping.join_all().await;
                return ("endpoints", turn);
            }
        }
        unreachable!("the loop ends with the load")
    }

    async fn certificates(self) -> (&'static str, usize) {
        let history = &self.configuration.certificates;
        for turn in 0.. {
            let next_turn = Instant::now() + PAUSE;
            let generated = rcgen::generate_simple_self_signed(["soak.example".to_owned()]).unwrap();
            let number = history.begin(generated.cert.der().to_vec());
            let text = secret(&generated.cert.pem(), &generated.signing_key.serialize_pem());
            let text = route("certificates", number, &[("a", 1)]) + &text;
            self.gateway.write("certificates.yaml", &text);
            self.gateway.wait_for_revision("/probe-certificates", number).await;
            history.mark_observed(number);
            if self.pause_and_check_end(turn, next_turn).await {
                return ("certificates", turn);
            }
        }
        unreachable!("the loop ends with the load")
    }

    /// Makes a backend close its idle connections, so that Portico may send a request on a closing connection.
    async fn close_connections(self, hasty: Backend) -> (&'static str, usize) {
        for turn in 0.. {
            let next_turn = Instant::now() + PAUSE;
            hasty.close_idle();
            if self.pause_and_check_end(turn, next_turn).await {
                return ("hang-ups", turn);
            }
        }
        unreachable!("the loop ends with the load")
    }

    /// Waits for the time of the next turn. Returns whether the load has ended.
    async fn pause_and_check_end(&self, turn: usize, next_turn: Instant) -> bool {
        if turn == 0 {
            self.started_editors.fetch_add(1, Ordering::SeqCst);
        }
        sleep_until(next_turn).await; // The rate of the edits.
        self.stop.load(Ordering::SeqCst)
    }
}

/// A route for `/NAME` that sends its version to the backend, and one that shows it to clients in a redirect.
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

/// The route, Service and EndpointSlices in one file, so that they are applied atomically: a client that sees the
/// redirect knows that the endpoints are configured.
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
    for (index, port) in ports.iter().enumerate() {
        text += &format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: pods-{index}
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
/// Time from when a backend stops accepting connections until it closes them, as in a Pod that shuts down gracefully.
const GRACE: Duration = Duration::from_secs(1);
