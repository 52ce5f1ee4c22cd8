//! How contexts pass from clients to endpoints.

use http::{HeaderMap, HeaderName};

use super::context::{ParentContext, RequestTrace};
use super::extract::{extract, extract_b3_fields};
use super::format::{InjectedFormat, TraceFormat, is_of_context};
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

    /// Writes the context for the endpoint. Fields of other formats that are read are rewritten, too, if the request
    /// has them: an endpoint may read any of them, and would find the span and the decision of the client there.
    pub fn inject(&self, context: &RequestTrace, headers: &mut HeaderMap) {
        for name in &self.clear {
            headers.remove(name);
        }
        let stale = if self.inject.is_empty() { ReadFormats::default() } else { self.read_formats_in(headers) };
        for (index, injected) in self.inject.iter().enumerate() {
            let format = self.resolve(*injected, context);
            let is_repeated = self.inject[..index].iter().any(|other| self.resolve(*other, context) == format);
            if !is_repeated {
                inject(format, context, headers);
            }
        }
        let is_written = |format| self.inject.iter().any(|injected| self.resolve(*injected, context) == format);
        for format in stale.into_iter().flatten().filter(|format| !is_written(*format)) {
            inject(format, context, headers);
        }
    }

    /// The formats that are read and of which the request has fields.
    fn read_formats_in(&self, headers: &HeaderMap) -> ReadFormats {
        let mut found = ReadFormats::default();
        for name in headers.keys().filter(|name| is_of_context(name)) {
            let formats = TraceFormat::ALL_READ.into_iter().chain([TraceFormat::B3Single]);
            for (place, format) in found.iter_mut().zip(formats) {
                let is_read = self.extract.contains(&format)
                    || format == TraceFormat::B3Single && self.extract.contains(&TraceFormat::B3);
                if is_read && format.fields().contains(name) {
                    *place = Some(format);
                }
            }
        }
        found
    }

    /// An earlier tracer does not record the request and has written its context, and this one does: endpoints record
    /// it, whatever field they read.
    pub fn mark_recorded(context: &RequestTrace, headers: &mut HeaderMap) {
        for format in TraceFormat::ALL_READ {
            // The request may have both forms of B3.
            let other_form = (format == TraceFormat::B3).then(|| extract_b3_fields(headers)).flatten();
            for written in extract(format, headers).into_iter().chain(other_form) {
                mark_written(written, context, headers);
            }
        }
    }

    /// All fields that [`Propagation::inject`] may set or remove.
    pub fn changed_fields(&self) -> impl Iterator<Item = &HeaderName> {
        let read = (!self.inject.is_empty()).then(|| {
            let read = self.extract.iter().flat_map(|format| format.fields());
            let single = self.extract.contains(&TraceFormat::B3).then(|| TraceFormat::B3Single.fields());
            read.chain(single.into_iter().flatten())
        });
        let preserves = self.inject.contains(&InjectedFormat::Preserve);
        let preserved = preserves.then(|| self.default_format.fields());
        let written = self.inject.iter().filter_map(|injected| match injected {
            InjectedFormat::Format(format) => Some(format.fields()),
            InjectedFormat::Preserve => None,
        });
        self.clear
            .iter()
            .chain(read.into_iter().flatten())
            .chain(preserved.into_iter().flatten())
            .chain(written.flatten())
    }

    fn resolve(&self, injected: InjectedFormat, context: &RequestTrace) -> TraceFormat {
        match injected {
            InjectedFormat::Format(format) => format,
            InjectedFormat::Preserve => context.format.unwrap_or(self.default_format),
        }
    }
}

/// Each of the formats at its place.
type ReadFormats = [Option<TraceFormat>; TraceFormat::ALL_READ.len() + 1];

fn mark_written(written: ParentContext, context: &RequestTrace, headers: &mut HeaderMap) {
    let format = written.format;
    if written.span == Some(context.upstream_span)
        && written.trace.is_some_and(|trace| format.trace_text(trace) == format.trace_text(context.trace))
    {
        inject(format, context, headers);
    }
}
