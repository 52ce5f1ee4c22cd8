//! `correlation-id`: adds a unique id to each request, and optionally to its response.
//!
//! ```yaml
//! plugin: correlation-id
//! config: {header_name: Kong-Request-ID, generator: uuid, echo_downstream: true}
//! ```
//!
//! With `header_name: X-Request-ID`, the id is also the request id of Portico: it is in the access log, in error
//! responses and in the header `X-Request-ID` of the response, and it may come from any client. Without this plugin,
//! Portico keeps the `X-Request-ID` only of clients in `--trusted-ips`.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::time::UNIX_EPOCH;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::field_names::{WrittenValue, parse_written_name};
use crate::plugin_api::{
    AccessOutcome, ArrivedRequest, BuildCx, ChangedFields, Phases, Plugin, PluginKind, RequestCx, ResponseCx,
    ResponseOutcome,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The header with the id. If the request already has the header with a value, the value is kept.
    header_name: String,
    /// The format of generated ids.
    generator: Generator,
    /// Also set the header on the response.
    echo_downstream: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { header_name: "Kong-Request-ID".to_owned(), generator: Generator::UuidCounter, echo_downstream: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum Generator {
    /// A UUID for each request.
    #[serde(rename = "uuid")]
    Uuid,
    /// A UUID of the worker thread and the number of ids that the thread has generated, joined by `#`.
    #[serde(rename = "uuid#counter")]
    UuidCounter,
    /// Address of the connection's client, listener port, process id, client port, number of ids that the worker thread
    /// has generated, and time, joined by `-`. If another plugin replies before this one runs, the response gets a UUID
    /// instead.
    #[serde(rename = "tracker")]
    Tracker,
}

pub(crate) struct CorrelationId {
    header: HeaderName,
    /// Whether the header is the one with the request id of Portico.
    is_request_id: bool,
    generator: Generator,
    echo: bool,
}

impl PluginKind for CorrelationId {
    const NAME: &'static str = "correlation-id";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 100_001;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = CorrelationId;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let header = parse_written_name("header_name", &config.header_name, WrittenValue::Identifier);
        let header = header.map_err(|error| vec![error])?;
        let is_request_id = header == "x-request-id";
        Ok(CorrelationId { header, is_request_id, generator: config.generator, echo: config.echo_downstream })
    }
}

impl Plugin for CorrelationId {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let id = match cx.head.headers.get(&self.header).filter(|id| !id.is_empty()) {
            Some(id) => id.clone(),
            None => {
                let id = match self.generator {
                    Generator::Uuid => uuid(),
                    Generator::UuidCounter => uuid_with_counter(),
                    Generator::Tracker => tracker_id(cx),
                };
                cx.head.headers.insert(&self.header, id.clone());
                id
            }
        };
        *cx.correlation_id = Some((self.header.clone(), id.clone()));
        if self.is_request_id {
            *cx.new_id = Some(id);
        } else if self.echo {
            cx.set_plugin_data(id);
        }
        AccessOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add(&self.header);
        if self.echo {
            fields.response.add(&self.header);
        }
    }

    fn sets_request_id(&self) -> bool {
        self.is_request_id
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if !self.echo {
            return ResponseOutcome::Continue;
        }
        if self.is_request_id {
            cx.headers.insert(&self.header, cx.id.clone());
            return ResponseOutcome::Continue;
        }
        // There is no id if another plugin replied before the access phase of this one. The format `tracker` needs the
        // request, so a UUID replaces it.
        let id = match cx.plugin_data::<HeaderValue>() {
            Some(id) => id.clone(),
            None if self.generator == Generator::UuidCounter => uuid_with_counter(),
            None => uuid(),
        };
        cx.headers.insert(&self.header, id);
        ResponseOutcome::Continue
    }
}

/// Id generator of one worker thread.
struct IdSource {
    worker_id: UuidText,
    process: u32,
    /// Number of ids in the formats `uuid#counter` and `tracker` generated so far.
    issued: Cell<u64>,
    /// Buffer for the next ids. One allocation per id would cost more than generating it.
    buffer: RefCell<BytesMut>,
}

thread_local! {
    static ID_SOURCE: IdSource = IdSource {
        worker_id: UuidText::random(),
        process: std::process::id(),
        issued: Cell::new(0),
        buffer: RefCell::default(),
    };
}

impl IdSource {
    /// Counts an id, and returns the new number.
    fn next_number(&self) -> u64 {
        self.issued.set(self.issued.get() + 1);
        self.issued.get()
    }

    /// Creates a header value from the text that `write` appends to the buffer.
    fn header_value(&self, write: impl FnOnce(&mut BytesMut)) -> HeaderValue {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.capacity() < ID_CAPACITY {
            *buffer = BytesMut::with_capacity(IDS_PER_BUFFER * ID_CAPACITY);
        }
        write(&mut buffer);
        HeaderValue::from_maybe_shared(buffer.split().freeze())
            .expect("digits, letters and `#-.:` are valid in a header value")
    }
}

fn uuid() -> HeaderValue {
    ID_SOURCE.with(|source| source.header_value(|buffer| buffer.extend_from_slice(&UuidText::random().0)))
}

fn uuid_with_counter() -> HeaderValue {
    ID_SOURCE.with(|source| {
        source.header_value(|buffer| {
            buffer.extend_from_slice(&source.worker_id.0);
            buffer.extend_from_slice(b"#");
            buffer.extend_from_slice(itoa::Buffer::new().format(source.next_number()).as_bytes());
        })
    })
}

fn tracker_id(cx: &RequestCx<'_>) -> HeaderValue {
    let ArrivedRequest { peer, port, .. } = cx.client.received;
    let (peer, client_port) = (peer.ip(), peer.port());
    let time = cx.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    ID_SOURCE.with(|source| {
        let (number, process) = (source.next_number(), source.process);
        source.header_value(|buffer| {
            write!(buffer, "{peer}-{port}-{process}-{client_port}-{number}-{time:.3}")
                .expect("writing to a BytesMut does not fail");
        })
    })
}

/// A UUID as text.
struct UuidText([u8; 36]);

impl UuidText {
    /// A random UUID (version 4).
    fn random() -> Self {
        // Bits 76 to 79 are the version, bits 62 and 63 the variant.
        let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
        let mut text = [b'-'; 36];
        let digit_positions = (0..36).filter(|position| ![8, 13, 18, 23].contains(position));
        for (index, position) in digit_positions.enumerate() {
            text[position] = b"0123456789abcdef"[(bits >> (124 - 4 * index)) as usize & 0xf];
        }
        UuidText(text)
    }
}

/// Bytes for an IPv6 address and five numbers. The buffer grows for longer ids.
const ID_CAPACITY: usize = 128;
/// Ids per allocation. Few, because each id keeps the whole allocation alive.
const IDS_PER_BUFFER: usize = 32;

#[cfg(test)]
mod tests {
    use http::Response;
    use serde_json::json;

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestRequest, build, chain};

    const KIND: RegisteredKind<CorrelationId> = RegisteredKind::NEW;

    fn is_uuid(text: &str) -> bool {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        lengths == [8, 4, 4, 4, 12] && text.as_bytes()[14] == b'4' && b"89ab".contains(&text.as_bytes()[19])
    }

    // docs/kong-compatibility.md, 4.7
    #[tokio::test]
    async fn each_request_gets_a_unique_id() {
        let chain = chain(&[(&KIND, json!({}))]);
        let (first, second) = (TestRequest::get("/").run(&chain).await, TestRequest::get("/").run(&chain).await);
        let split = |id: Option<&str>| {
            let (worker, number) = id.unwrap().split_once('#').unwrap();
            (worker.to_owned(), number.parse::<u64>().unwrap())
        };
        let (first_id, second_id) =
            (split(first.upstream_header("kong-request-id")), split(second.upstream_header("kong-request-id")));
        assert!(is_uuid(&first_id.0), "{first_id:?}");
        assert_eq!(second_id, (first_id.0, first_id.1 + 1));
        assert_eq!(first.response_header("kong-request-id"), None, "no header on the response by default");

        let chain =
            self::chain(&[(&KIND, json!({"generator": "uuid", "header_name": "X-Id", "echo_downstream": true}))]);
        let (first, second) = (TestRequest::get("/").run(&chain).await, TestRequest::get("/").run(&chain).await);
        assert!(is_uuid(first.upstream_header("x-id").unwrap()));
        assert_ne!(first.upstream_header("x-id"), second.upstream_header("x-id"));
        assert_eq!(first.response_header("x-id"), first.upstream_header("x-id"));

        let chain = self::chain(&[(&KIND, json!({"generator": "tracker"}))]);
        let outcome = TestRequest::get("/").run(&chain).await;
        let id = outcome.upstream_header("kong-request-id").unwrap();
        let parts: Vec<&str> = id.split('-').collect();
        let process = std::process::id().to_string();
        assert_eq!(parts[..4], ["192.0.2.1", "80", &process, "40000"], "{id}");
        assert!(parts[4].parse::<u64>().is_ok() && parts[5] == "1767355200.000", "{id}");
    }

    // docs/kong-compatibility.md, 4.7
    #[tokio::test]
    async fn existing_ids_are_kept() {
        let chain = chain(&[(&KIND, json!({"header_name": "X-Id", "generator": "uuid", "echo_downstream": true}))]);
        let mut request = TestRequest::get("/").header("x-id", "mine");
        request.upstream_response = Response::builder().header("x-id", "the endpoint's").body(()).unwrap();
        let outcome = request.run(&chain).await;
        assert_eq!((outcome.upstream_header("x-id"), outcome.response_header("x-id")), (Some("mine"), Some("mine")));
        let outcome = TestRequest::get("/").header("x-id", "").run(&chain).await;
        assert!(is_uuid(outcome.upstream_header("x-id").unwrap()), "an empty header is replaced");
        assert_eq!(outcome.response_header("x-id"), outcome.upstream_header("x-id"));
    }

    // docs/kong-compatibility.md, 4.7
    #[tokio::test]
    async fn replies_of_earlier_plugins_get_an_id() {
        for (generator, has_counter) in [("uuid", false), ("uuid#counter", true), ("tracker", false)] {
            let chain = chain(&[
                (&RegisteredKind::<ReplyFirst>::NEW, json!({})),
                (&KIND, json!({"generator": generator, "echo_downstream": true})),
            ]);
            let outcome = TestRequest::get("/").run(&chain).await;
            assert_eq!(outcome.upstream_header("kong-request-id"), None);
            let id = outcome.response_header("kong-request-id").unwrap();
            assert!(is_uuid(id.split('#').next().unwrap()) && id.contains('#') == has_counter, "{id}");
        }
    }

    /// A plugin that replies before all other plugins.
    struct ReplyFirst;

    impl PluginKind for ReplyFirst {
        const NAME: &'static str = "first";
        const HAS_CREDENTIALS: bool = false;
        const PRIORITY: i32 = 1_000_000;
        const PHASES: Phases = Phases::ACCESS;
        const FAIL_CLOSED: bool = false;
        type Config = serde_json::Map<String, serde_json::Value>;
        type Plugin = ReplyFirst;

        fn build(_: Self::Config, _: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
            Ok(ReplyFirst)
        }
    }

    impl Plugin for ReplyFirst {
        fn access<'a>(&'a self, _: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            AccessOutcome::Reply(crate::plugin_api::Reply::plain(http::StatusCode::FORBIDDEN, "no", "no"))
        }
    }

    #[test]
    fn invalid_header_names_are_rejected() {
        for (config, field) in [
            (json!({"header_name": "a b"}), "config.header_name"),
            (json!({"header_name": ""}), "config.header_name"),
            (json!({"generator": "guid"}), "config.generator"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
