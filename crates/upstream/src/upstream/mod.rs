//! Upstreams: the endpoints of a backend and the state that must survive configuration changes.
//!
//! ```text
//!   snapshot ──Arc<Upstream>──▶ endpoints, configured and resolved (ArcSwap: churn swaps these, not the snapshot)
//!                                  │ a worker picks the next address; endpoint health is shared by all workers
//!                                  ▼
//!   ConnectionPools (one per worker) ──▶ idle connection, newest first ── or ──▶ connect, with TLS if required
//!                  └ TCP and TLS listeners ──▶ RawConnection, one for each client connection
//! ```

pub mod dns;
pub mod settings;

mod admission;
mod affinity;
mod alternatives;
mod attempt_settings;
mod check_queue;
mod check_report;
mod circuit_breaker;
mod configured_endpoints;
mod connect;
mod connect_attempt;
mod counted_connection;
mod counters;
mod endpoint_body;
mod endpoint_choice;
mod endpoint_error;
mod endpoint_load;
mod endpoint_search;
mod endpoint_state;
mod endpoint_trial;
mod head_reader;
mod health;
mod health_checks;
mod http1;
mod http2;
mod limits;
mod load_balancing;
mod local_shortage;
mod locality;
mod outcome;
mod outcome_observers;
mod outlier_detection;
mod own_sockets;
mod pool;
mod proxy_protocol;
mod raw_connecting;
mod raw_connection;
mod registry;
mod response_streams;
mod response_times;
mod retry_budget;
mod retry_counters;
mod route_balancing;
mod single_writer_counter;
mod sliding_count;
mod socket;
mod socket_budget;
mod target;
mod upgraded;
#[expect(clippy::module_inception, reason = "an upstream has the same name as the module of all of them")]
mod upstream;
mod upstream_availability;
mod upstream_key;
mod worker_endpoints;
mod worker_subset;

pub use admission::{Admission, ClientWait, NotAdmitted, OverloadReport, Overloaded, QueuedRequest, WaitingFor};
pub use affinity::{
    AffinityCarrier, AffinitySettings, EndpointIdentities, EndpointKeys, KeyAssignment, RequestAffinity, SessionValue,
    cookie_value, cookies,
};
pub use alternatives::AlternativeBackends;
pub use attempt_settings::AttemptSettings;
pub use check_report::{CheckOutcome, CheckReport};
pub use circuit_breaker::{CircuitPhase, CircuitReport, RequestArrival};
pub use configured_endpoints::{BackendTraffic, EndpointAddress, Endpoints};
pub use connect::{ConnectError, EndpointConnector};
pub use counters::UpstreamCounters;
pub use endpoint_body::{EndpointBody, IncomingBody};
pub use endpoint_choice::EndpointChoice;
pub use endpoint_error::{EndpointError, RequestFailure};
pub use endpoint_search::{EndpointPick, EndpointSearch};
pub use endpoint_state::ActiveRequest;
pub use endpoint_trial::EndpointTrial;
pub use health::{Availability, EjectionCause};
pub use health_checks::HealthChecks;
pub use load_balancing::{EndpointSet, NoEndpoint, Picked, PickedBecause, ResolvedEndpoint, hash64};
pub use local_shortage::LocalShortage;
pub use locality::{LevelReport, MAX_LEVELS};
pub use outcome::{EndpointTime, GRPC_STATUS, GivenTime, GrpcStatus, MIN_CLIENT_DELAY, Outcome, OutcomeClass};
pub use outcome_observers::{OutcomeObserver, OutcomeObservers};
pub use outlier_detection::{EndpointCounters, EndpointHealthReport, HealthState, HealthTransition};
pub use own_sockets::{OwnSocket, OwnSockets};
pub use pool::{ConnectionPools, IdleLimits, IdleReuse, UpstreamConnection};
pub use proxy_protocol::{ConnectionEnds, ProxyProtocol};
pub use raw_connecting::{RawConnectError, RawDestination};
pub use raw_connection::RawConnection;
pub use registry::UpstreamRegistry;
pub use response_times::ResponseTimes;
pub use retry_budget::{MinRetryRate, OverBudget, RetryLimits};
pub use retry_counters::{HedgeCounters, HedgeOutcome, RetryCounters, RetryMetrics, RetryReason, RetryStop};
pub use route_balancing::RouteBalancing;
pub use single_writer_counter::SingleWriterCounter;
pub use socket_budget::client_slots::ClientSlot;
pub use socket_budget::{SocketBudget, SocketLimit};
pub use target::{PlaceWait, UpstreamTarget};
pub use upgraded::UpgradedConnection;
pub use upstream::{Alternatives, EndpointCounts, EndpointReport, Upstream};
pub use upstream_key::{UpstreamKey, UpstreamSource};
pub use worker_subset::WorkerSubsetting;
