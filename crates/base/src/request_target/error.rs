//! Why the target of a request is rejected.

/// Why a request has no path or no host that routes are matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// CONNECT asks for a tunnel and has no path.
    Connect,
    Target(InvalidTarget),
    Host(InvalidHost),
}

/// What is wrong with the target itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidTarget {
    Scheme,
    HostWithoutPath,
    /// `*` with another method than OPTIONS.
    Asterisk,
    NoSlash,
    QuotationMark,
    BrokenEscape,
    EscapedNul,
    TooLong,
    /// Its host.
    Authority,
}

/// What is wrong with the Host header, or with `:authority` in HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidHost {
    Absent,
    Several,
    Malformed,
    DiffersFromAuthority,
}

impl InvalidTarget {
    /// The message for the client.
    pub fn message(self) -> &'static str {
        match self {
            InvalidTarget::Scheme => "the target's scheme is neither http nor https",
            InvalidTarget::HostWithoutPath => "the target is a host without a path",
            InvalidTarget::Asterisk => "the target * is for OPTIONS only",
            InvalidTarget::NoSlash => "the target does not start with a slash",
            InvalidTarget::QuotationMark => "the path has a quotation mark that is not encoded",
            InvalidTarget::BrokenEscape => "the path has a percent sign that is not followed by two hexadecimal digits",
            InvalidTarget::EscapedNul => "the path has an escaped NUL",
            InvalidTarget::TooLong => "the path is too long when its bytes that are not ASCII are encoded",
            InvalidTarget::Authority => "the target's authority is not a host name or address with an optional port",
        }
    }
}

impl InvalidHost {
    /// The message for the client.
    pub fn message(self) -> &'static str {
        match self {
            InvalidHost::Absent => "the request has no Host header",
            InvalidHost::Several => "the request has more than one Host header",
            InvalidHost::Malformed => "the Host header is not a host name or address with an optional port",
            InvalidHost::DiffersFromAuthority => "the Host header differs from the :authority",
        }
    }
}

impl From<InvalidTarget> for TargetError {
    fn from(invalid: InvalidTarget) -> Self {
        TargetError::Target(invalid)
    }
}

impl From<InvalidHost> for TargetError {
    fn from(invalid: InvalidHost) -> Self {
        TargetError::Host(invalid)
    }
}
