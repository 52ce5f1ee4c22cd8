//! The body of an endpoint's response, with the connection that it arrives on.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;

use super::UpstreamConnection;
use super::admission::{Admission, WaitingFor};
use super::endpoint_error::{EndpointError, RequestFailure};
use super::endpoint_trial::EndpointTrial;
use super::outcome::{GRPC_STATUS, GrpcStatus, MIN_CLIENT_DELAY, Outcome, OutcomeClass};
use super::outcome_observers::OutcomeObservers;
use crate::http1::ReceivedFields;
use crate::turn_clock;

/// Where the body of a response is read.
pub enum IncomingBody {
    /// From the connection itself.
    Connection,
    Library(Incoming),
}

/// What the library has received.
pub(super) fn received<B>(
    outcome: Result<Response<Incoming>, TrySendError<Request<B>>>,
) -> Result<Response<IncomingBody>, RequestFailure<B>> {
    Ok(outcome?.map(IncomingBody::Library))
}

pub struct EndpointBody<B> {
    incoming: IncomingBody,
    connection: UpstreamConnection<B>,
    admission: Admission,
    end: EndReport,
    /// The trial of a half-open endpoint, until the rest of the response shows its result.
    trial: Option<Box<EndpointTrial>>,
    reader: ReaderTime,
}

/// How long the client has not read what had arrived.
#[derive(Debug, Default)]
struct ReaderTime {
    /// When it got the last part, until it asks for the next one.
    since: Option<Instant>,
    total: Duration,
}

/// What of the rest of a response is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndReport {
    Nothing,
    /// Whether it is complete.
    End,
    /// The status of a gRPC call as well.
    Grpc {
        has_message: bool,
        has_client_deadline: bool,
    },
}

impl<B> EndpointBody<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub fn new(incoming: IncomingBody, connection: UpstreamConnection<B>) -> Self {
        EndpointBody {
            incoming,
            connection,
            admission: Admission::default(),
            end: EndReport::Nothing,
            trial: None,
            reader: ReaderTime::default(),
        }
    }

    /// Whether the fields of the response are not in its header map, and were not taken.
    pub fn has_received_fields(&self) -> bool {
        self.connection.has_received_fields()
    }

    /// Takes the fields of the response that are not in its header map.
    pub fn take_received_fields(&self) -> Option<ReceivedFields> {
        self.connection.take_received_fields()
    }

    /// From now on, what the rest of the response shows about the endpoint is reported.
    pub fn report_end(&mut self) {
        self.end = EndReport::End;
    }

    /// The same for the response of a gRPC call, whose status is in its trailers. `has_client_deadline`: the client has
    /// limited its time.
    pub fn report_end_of_call(&mut self, has_client_deadline: bool) {
        self.end = EndReport::Grpc { has_message: false, has_client_deadline };
    }

    /// Holds the admission of the request until the body ends, and its trial of a half-open endpoint until there is a
    /// result.
    pub fn hold(&mut self, admission: Admission, trial: Option<Box<EndpointTrial>>) {
        (self.admission, self.trial) = (admission, trial);
        self.await_reader();
    }

    /// The client has to read before the next part is received.
    fn await_reader(&mut self) {
        if self.is_end_stream() {
            return;
        }
        self.reader.since = Some(turn_clock::now());
        if let Some(wait) = self.admission.client_wait() {
            wait.begin(WaitingFor::ResponseReader);
        }
    }

    /// The client has read what it got.
    fn end_reader_wait(&mut self) {
        let Some(since) = self.reader.since.take() else { return };
        self.reader.total += turn_clock::now().saturating_duration_since(since);
        if let Some(wait) = self.admission.client_wait() {
            wait.end(WaitingFor::ResponseReader);
        }
    }

    /// Polls the next frame. None at the end of the body, which may be too early on HTTP/2: see
    /// [`EndpointBody::is_reset`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EndpointError>>> {
        self.end_reader_wait();
        let frame = match &mut self.incoming {
            IncomingBody::Connection => self.connection.poll_frame(cx),
            IncomingBody::Library(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(EndpointError::from)))
            }
        };
        match &frame {
            Poll::Ready(frame) if self.end != EndReport::Nothing => self.observe(frame.as_ref()),
            _ => {}
        }
        if let Poll::Ready(Some(Ok(_))) = &frame {
            self.await_reader();
        }
        frame
    }

    /// Reports what a frame of the body, or its end, shows about the endpoint.
    fn observe(&mut self, frame: Option<&Result<Frame<Bytes>, EndpointError>>) {
        let is_truncated = match frame {
            Some(Err(error)) => error.is_of_endpoint(),
            Some(Ok(_)) => false,
            None => self.is_reset(),
        };
        if is_truncated {
            self.end = EndReport::Nothing;
            // Servers end responses whose clients do not read them.
            let is_excused = self.reader.total >= MIN_CLIENT_DELAY || self.connection.has_complaint();
            let class = if is_excused { OutcomeClass::Inconclusive } else { OutcomeClass::Truncated };
            return self.report(&Outcome::of(class));
        }
        let (EndReport::Grpc { has_message, has_client_deadline }, Some(Ok(frame))) = (self.end, frame) else { return };
        match frame.trailers_ref() {
            Some(trailers) => {
                self.end = EndReport::End;
                let grpc_status = trailers.get(GRPC_STATUS).map_or(GrpcStatus::MISSING, GrpcStatus::read);
                self.report(&Outcome::of_call(grpc_status, has_client_deadline));
            }
            None if !has_message => {
                self.end = EndReport::Grpc { has_message: true, has_client_deadline };
                self.report(&Outcome::of_call(GrpcStatus::Streaming, has_client_deadline));
            }
            None => {}
        }
    }

    fn report(&mut self, outcome: &Outcome) {
        let Some(upstream) = self.connection.upstream() else { return };
        let endpoint = Some(self.connection.address);
        OutcomeObservers { endpoint, ..OutcomeObservers::of_service(&upstream, &mut self.admission) }.report(outcome);
        self.trial = None;
    }

    /// Whether the body is known to be complete.
    pub fn is_end_stream(&self) -> bool {
        match &self.incoming {
            IncomingBody::Connection => self.connection.body_is_ended(),
            IncomingBody::Library(incoming) => incoming.is_end_stream(),
        }
    }

    /// Whether a body that yields no more frames is incomplete: the stream of HTTP/2 was reset without an error.
    pub fn is_reset(&self) -> bool {
        self.connection.is_http2() && !self.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            IncomingBody::Connection => self.connection.body_size_hint(),
            IncomingBody::Library(incoming) => incoming.size_hint(),
        }
    }

    pub fn is_http2(&self) -> bool {
        self.connection.is_http2()
    }

    /// Returns the connection to its pool. To be called only after the whole response: a connection that is dropped is
    /// reset.
    pub fn release(mut self) {
        if let EndReport::Grpc { has_client_deadline, .. } = self.end {
            self.report(&Outcome::of_call(GrpcStatus::MISSING, has_client_deadline));
        }
        if self.end != EndReport::Nothing {
            self.connection.report_completed();
        }
        self.connection.release();
    }
}
