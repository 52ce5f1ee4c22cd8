//! How contexts pass from clients to endpoints.

use http::{HeaderMap, HeaderName};

use super::context::{ParentContext, RequestTrace};
use super::extract::extract;
use super::format::{InjectedFormat, TraceFormat};
use super::inject::inject;

/// The formats that are read and written, and the fields that are removed in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagation {
    pub extract: Box<[TraceFormat]>,
    pub clear: Box<[HeaderName]>,
    pub inject: Box<[InjectedFormat]>,
    pub default_format: TraceFormat,
}

impl Propagation {
    /// Contexts are read in these formats, in this order. Endpoints get one in the format of the request, or in the
    /// first of the list if the request has none. Without formats, endpoints get what the client has sent.
    pub fn preserving(formats: &[TraceFormat]) -> Self {
        let preserved = formats.first().map(|_| InjectedFormat::Preserve);
        Propagation {
            extract: formats.into(),
            clear: Box::new([]),
            inject: preserved.into_iter().collect(),
            default_format: formats.first().copied().unwrap_or(TraceFormat::W3c),
        }
    }

    /// Whether only W3C Trace Context is read, and endpoints get it, without other changes of the header.
    pub fn is_only_w3c(&self) -> bool {
        matches!(
            (&*self.extract, &*self.clear, &*self.inject, self.default_format),
            ([TraceFormat::W3c], [], [InjectedFormat::Preserve], TraceFormat::W3c)
        )
    }

    /// Whether endpoints get a context.
    pub fn has_fields(&self) -> bool {
        !self.inject.is_empty() || !self.clear.is_empty()
    }

    /// The context of the first format that the request has.
    pub fn extract(&self, headers: &HeaderMap) -> Option<ParentContext> {
        self.extract.iter().find_map(|format| extract(*format, headers))
    }

    /// Writes the context for the endpoint.
    pub fn inject(&self, context: &RequestTrace, headers: &mut HeaderMap) {
        for name in &self.clear {
            headers.remove(name);
        }
        for (index, injected) in self.inject.iter().enumerate() {
            let format = self.resolve(*injected, context);
            let is_repeated = self.inject[..index].iter().any(|other| self.resolve(*other, context) == format);
            if !is_repeated {
                inject(format, context, headers);
            }
        }
    }

    /// An earlier tracer does not record the request and has written its context, and this one does: endpoints record
    /// it, whatever field they read.
    pub fn mark_recorded(context: &RequestTrace, headers: &mut HeaderMap) {
        for format in TraceFormat::ALL_READ {
            if let Some(written) = extract(format, headers)
                && written.span == Some(context.upstream_span)
                && written.trace.is_some_and(|trace| format.trace_text(trace) == format.trace_text(context.trace))
            {
                inject(written.format, context, headers);
            }
        }
    }

    /// All fields that [`Propagation::inject`] may set or remove.
    pub fn changed_fields(&self) -> impl Iterator<Item = &HeaderName> {
        let preserved = self.inject.contains(&InjectedFormat::Preserve).then(|| {
            let read = self.extract.iter().flat_map(|format| format.fields());
            let single = self.extract.contains(&TraceFormat::B3).then(|| TraceFormat::B3Single.fields());
            read.chain(single.into_iter().flatten()).chain(self.default_format.fields())
        });
        let written = self.inject.iter().filter_map(|injected| match injected {
            InjectedFormat::Format(format) => Some(format.fields()),
            InjectedFormat::Preserve => None,
        });
        self.clear.iter().chain(preserved.into_iter().flatten()).chain(written.flatten())
    }

    fn resolve(&self, injected: InjectedFormat, context: &RequestTrace) -> TraceFormat {
        match injected {
            InjectedFormat::Format(format) => format,
            InjectedFormat::Preserve => context.format.unwrap_or(self.default_format),
        }
    }
}
