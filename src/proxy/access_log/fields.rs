//! What a line of the access log can say, by the names that `--access-log-fields` takes.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Time,
    Client,
    Method,
    Host,
    Path,
    Query,
    Protocol,
    Status,
    BytesIn,
    BytesOut,
    DurationMs,
    Tls,
    Sni,
    Gateway,
    Listener,
    Route,
    Rule,
    Upstream,
    Address,
    Consumer,
    RequestId,
    Fault,
    UserAgent,
}

impl Field {
    /// Each with its name, in the order in which they are written unless it is said otherwise.
    pub const ALL: &[(Field, &str)] = &[
        (Field::Time, "time"),
        (Field::Client, "client"),
        (Field::Method, "method"),
        (Field::Host, "host"),
        (Field::Path, "path"),
        (Field::Query, "query"),
        (Field::Protocol, "protocol"),
        (Field::Status, "status"),
        (Field::BytesIn, "bytes_in"),
        (Field::BytesOut, "bytes_out"),
        (Field::DurationMs, "duration_ms"),
        (Field::Tls, "tls"),
        (Field::Sni, "sni"),
        (Field::Gateway, "gateway"),
        (Field::Listener, "listener"),
        (Field::Route, "route"),
        (Field::Rule, "rule"),
        (Field::Upstream, "upstream"),
        (Field::Address, "address"),
        (Field::Consumer, "consumer"),
        (Field::RequestId, "request_id"),
        (Field::Fault, "fault"),
        (Field::UserAgent, "user_agent"),
    ];

    /// Those that are written unless somebody asks for others.
    pub fn usual() -> Vec<Field> {
        Field::ALL.iter().map(|(field, _)| *field).filter(|field| field.is_usual()).collect()
    }

    /// Names of parameters and of people are not for every log.
    pub fn is_usual(self) -> bool {
        !matches!(self, Field::Query | Field::Consumer)
    }

    /// What stands before it in a line of text. What everybody recognizes stands alone.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Field::Time
            | Field::Client
            | Field::Method
            | Field::Host
            | Field::Path
            | Field::Protocol
            | Field::Status
            | Field::DurationMs => "",
            Field::Query => "query=",
            Field::BytesIn => "in=",
            Field::BytesOut => "out=",
            Field::Tls => "tls=",
            Field::Sni => "sni=",
            Field::Gateway => "gateway=",
            Field::Listener => "listener=",
            Field::Route => "route=",
            Field::Rule => "rule=",
            Field::Upstream => "upstream=",
            Field::Address => "address=",
            Field::Consumer => "consumer=",
            Field::RequestId => "id=",
            Field::Fault => "fault=",
            Field::UserAgent => "agent=",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Field::ALL.iter().find(|(field, _)| field == self).expect("every field is in the list");
        formatter.write_str(name)
    }
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Field::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(field, _)| *field).ok_or_else(|| {
            let known: Vec<_> = Field::ALL.iter().map(|(_, name)| *name).collect();
            format!("there is no field `{text}`; write names of {}, separated by commas", known.join(", "))
        })
    }
}
