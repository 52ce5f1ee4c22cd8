//! Whether an endpoint may get requests, and why not.

/// Whether an endpoint may get a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    Available,
    /// A connection to it looks dead, and no other has been tried yet. Others are preferred.
    Suspect,
    /// One request may show whether it works again: the one that claims it.
    HalfOpen,
    Ejected(EjectionCause),
}

/// Why an endpoint is ejected. It may have several causes at once, of which the first one here is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EjectionCause {
    /// Connections to it fail.
    Connect,
    /// Its active health check fails.
    ActiveCheck,
    /// Consecutive requests got no response, or a part of one.
    LocalOrigin,
    /// Consecutive responses with 502, 503 or 504.
    GatewayErrors,
    /// Consecutive responses with server errors.
    ServerErrors,
    /// Its success rate is much lower than that of the others.
    SuccessRate,
    /// Too large a part of its requests fails.
    FailurePercentage,
}

impl EjectionCause {
    pub const ALL: [EjectionCause; 7] = [
        EjectionCause::Connect,
        EjectionCause::ActiveCheck,
        EjectionCause::LocalOrigin,
        EjectionCause::GatewayErrors,
        EjectionCause::ServerErrors,
        EjectionCause::SuccessRate,
        EjectionCause::FailurePercentage,
    ];

    /// The name in metrics, logs and debug output.
    pub fn name(self) -> &'static str {
        match self {
            EjectionCause::Connect => "connect",
            EjectionCause::ActiveCheck => "active",
            EjectionCause::LocalOrigin => "local_origin",
            EjectionCause::GatewayErrors => "gateway_errors",
            EjectionCause::ServerErrors => "server_errors",
            EjectionCause::SuccessRate => "success_rate",
            EjectionCause::FailurePercentage => "failure_percentage",
        }
    }

    /// Whether the ejection ends after a time.
    const fn is_timed(self) -> bool {
        match self {
            EjectionCause::Connect | EjectionCause::ActiveCheck => false,
            EjectionCause::LocalOrigin
            | EjectionCause::GatewayErrors
            | EjectionCause::ServerErrors
            | EjectionCause::SuccessRate
            | EjectionCause::FailurePercentage => true,
        }
    }

    /// The bit in the state of an endpoint.
    pub(super) const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The bits of the causes that end after a time.
    pub(super) const TIMED_BITS: u16 = {
        let (mut bits, mut index) = (0, 0);
        while index < Self::ALL.len() {
            if Self::ALL[index].is_timed() {
                bits |= Self::ALL[index].bit();
            }
            index += 1;
        }
        bits
    };
}
