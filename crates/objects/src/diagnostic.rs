//! A diagnostic: one error or warning about the configuration, with the field, what is wrong, and how to fix it.
//!
//! Every module that validates creates the same type, so nothing is converted on the way to a condition, an event, a
//! metric, the log or `portico check`. Types that add something, such as a position in a file, contain a `Diagnostic`.

use std::fmt;

/// What is wrong with one field, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic {
    /// The path in the object, for example `spec.rules[0].backendRefs[0].name`; map keys, which may contain dots, are
    /// in brackets (`metadata.labels[app.kubernetes.io/name]`). Empty for the object itself.
    pub field: String,
    /// What is wrong, without the path: a clause without a full stop.
    pub message: String,
    /// How to fix it: a clause without a full stop, or empty.
    pub remedy: String,
    pub severity: Severity,
    pub topic: Topic,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Error,
    Warning,
}

/// What a diagnostic is about. Statuses and reports treat some topics in a special way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// The value of a field: every diagnostic that has none of the other topics.
    #[default]
    Field,
    /// A route refers to a Gateway that does not exist, so it is unknown which controller the Gateway would have.
    MissingParent,
    /// Another object with the same host comes first, so that this one gets fewer requests than its author expects.
    Conflict,
    /// A class that does not exist, so that no controller serves the object.
    MissingClass,
    /// A plugin of a route does not work; the message also states the consequence for requests.
    Plugin,
    /// An annotation has no effect: it is unknown or malformed, or refers to an object that cannot be used.
    Annotation,
    /// An object that concerns this process has no effect, because its kind is not served.
    UnservedKind,
    /// This process cannot listen at an address. Other replicas may be able to.
    Listening,
}

/// The reason of diagnostics with the topic [`Topic::UnservedKind`].
pub const KIND_NOT_SERVED: &str = "KindNotServed";

/// The reason of the diagnostic about a rejected object itself, whose errors its source reports.
pub const REJECTED: Reason = Reason::Named("Rejected");

/// The reason of a diagnostic about a state that ends by itself, such as that of a new Gateway without an address.
pub const WAITING: Reason = Reason::Named("Waiting");

/// The reason of warnings about a port of a Service without a ready endpoint.
pub const NO_ENDPOINT: &str = "NoEndpoint";

/// What is wrong, as an identifier that programs can compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Only the message says what is wrong. A condition that reports the diagnostic has a reason of its own.
    #[default]
    Unspecified,
    UnknownField,
    /// The field refers to an object that does not exist: `Secret default/tls`.
    NotFound(String),
    /// Another condition says what is wrong, and the diagnostic only refers to it. The diagnostic exists because a
    /// program may read no other condition than the one that contains it.
    OtherCondition,
    /// An identifier in upper camel case: `NotYaml`, `Duplicate` …
    Named(&'static str),
}

impl Diagnostic {
    pub fn error(field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Diagnostic {
            field: field.into(),
            message: message.into(),
            remedy: remedy.into(),
            severity: Severity::Error,
            topic: Topic::default(),
            reason: Reason::default(),
        }
    }

    pub fn warning(field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Diagnostic::error(field, message, remedy).into_warning()
    }

    /// An error about a whole object.
    pub fn of_object(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Diagnostic::error("", message, remedy)
    }

    /// An error about a file or folder.
    pub fn of_file(reason: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Diagnostic::of_object(message, remedy).with_reason(Reason::Named(reason))
    }

    /// An error in the configuration of a plugin; `path` is relative to `config`.
    pub fn in_config(path: impl fmt::Display, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let path = path.to_string();
        let field = if path.is_empty() { "config".to_owned() } else { format!("config.{path}") };
        Diagnostic::error(field, message, remedy)
    }

    /// An error about a reference to an object that does not exist: `object` is its kind and name.
    pub fn not_found(field: impl Into<String>, object: impl fmt::Display, remedy: impl Into<String>) -> Self {
        let object = object.to_string();
        Diagnostic::error(field, format!("{object} does not exist"), remedy).with_reason(Reason::NotFound(object))
    }

    /// The same diagnostic as a warning: the field has less effect than its author expects, but nothing is rejected.
    pub fn into_warning(self) -> Self {
        self.with_severity(Severity::Warning)
    }

    pub fn with_severity(self, severity: Severity) -> Self {
        Diagnostic { severity, ..self }
    }

    pub fn with_topic(self, topic: Topic) -> Self {
        Diagnostic { topic, ..self }
    }

    pub fn with_reason(self, reason: Reason) -> Self {
        Diagnostic { reason, ..self }
    }

    /// The same diagnostic at another field.
    pub fn at(self, field: impl Into<String>) -> Self {
        Diagnostic { field: field.into(), ..self }
    }

    /// Whether something is rejected.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Field, message and remedy. Diagnostics with the same texts are reported once.
    pub fn texts(&self) -> [&str; 3] {
        [&self.field, &self.message, &self.remedy]
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.message)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(formatter, "; {}", self.remedy) }
    }
}

impl Severity {
    /// The value of the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl Reason {
    /// The identifier; `None` if the diagnostic has none, so that the reason of the condition applies.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Reason::UnknownField => Some("UnknownField"),
            Reason::Named(name) => Some(name),
            Reason::Unspecified | Reason::NotFound(_) | Reason::OtherCondition => None,
        }
    }
}
