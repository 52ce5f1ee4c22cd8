//! The requests of a producer and the responses to them, in versions that brokers have had since Kafka 0.11 and still
//! have in Kafka 4.

use std::collections::HashMap;

use super::wire::{MalformedResponse, WireReader, WireWriter};

/// A request: its number, and the version of the request and of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestKind {
    pub(super) key: i16,
    pub(super) version: i16,
}

pub(super) const PRODUCE: RequestKind = RequestKind { key: 0, version: 3 };
pub(super) const METADATA: RequestKind = RequestKind { key: 3, version: 4 };
pub(super) const SASL_HANDSHAKE: RequestKind = RequestKind { key: 17, version: 1 };
pub(super) const API_VERSIONS: RequestKind = RequestKind { key: 18, version: 0 };
pub(super) const SASL_AUTHENTICATE: RequestKind = RequestKind { key: 36, version: 0 };

/// How many replicas must have a message before the broker responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Acks {
    /// The broker does not respond.
    None,
    Leader,
    All,
}

impl Acks {
    fn number(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// The beginning of a request: header version 1, with the length still to be set by [`finish`].
pub(super) fn begin(api: RequestKind, correlation_id: i32) -> WireWriter {
    let mut request = WireWriter::default();
    request.i32(0);
    request.i16(api.key);
    request.i16(api.version);
    request.i32(correlation_id);
    request.string(CLIENT_ID);
    request
}

/// Sets the length of a request.
pub(super) fn finish(mut request: WireWriter) -> Vec<u8> {
    let length = u32::try_from(request.0.len() - 4).unwrap_or(u32::MAX);
    request.0[..4].copy_from_slice(&length.to_be_bytes());
    request.0
}

/// Requests the metadata of these topics. A broker that creates topics creates those that do not exist.
pub(super) fn write_metadata_request<'t>(request: &mut WireWriter, topics: impl ExactSizeIterator<Item = &'t str>) {
    request.length(topics.len());
    topics.for_each(|topic| request.string(topic));
    request.i8(1);
}

/// Which brokers there are, and which of them lead the partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) brokers: Vec<Broker>,
    pub(super) topics: Vec<TopicMetadata>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) id: i32,
    pub(super) host: String,
    pub(super) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicMetadata {
    pub(super) error: ErrorCode,
    pub(super) name: String,
    pub(super) partitions: Vec<PartitionMetadata>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionMetadata {
    pub(super) index: i32,
    /// `None` while there is no leader.
    pub(super) leader: Option<i32>,
}

impl Metadata {
    pub(super) fn parse(response: &[u8]) -> Result<Self, MalformedResponse> {
        let mut reader = WireReader(response);
        // How long the request was throttled.
        reader.i32()?;
        let brokers = reader.list(|reader| {
            let (id, host) = (reader.i32()?, reader.string()?.to_owned());
            let port = u16::try_from(reader.i32()?).map_err(|_| MalformedResponse)?;
            reader.nullable_string()?;
            Ok(Broker { id, host, port })
        })?;
        // The cluster, and its controller.
        reader.nullable_string()?;
        reader.i32()?;
        let topics = reader.list(|reader| {
            let (error, name) = (ErrorCode(reader.i16()?), reader.string()?.to_owned());
            reader.bool()?;
            let partitions = reader.list(|reader| {
                reader.i16()?;
                let (index, leader) = (reader.i32()?, reader.i32()?);
                reader.list(WireReader::i32)?;
                reader.list(WireReader::i32)?;
                Ok(PartitionMetadata { index, leader: Some(leader).filter(|id| *id >= 0) })
            })?;
            Ok(TopicMetadata { error, name, partitions })
        })?;
        Ok(Metadata { brokers, topics })
    }
}

/// The beginning of a produce request. A list of topics follows, each with its list of partitions.
pub(super) fn write_produce_head(request: &mut WireWriter, acks: Acks, timeout: i32) {
    // No transaction.
    request.null_string();
    request.i16(acks.number());
    request.i32(timeout);
}

/// The results of a produce request by topic and partition. They borrow the names, which a broker may repeat for many
/// partitions.
pub(super) fn parse_produce_response(response: &[u8]) -> Result<HashMap<(&str, i32), ErrorCode>, MalformedResponse> {
    let mut reader = WireReader(response);
    let topics = reader.list(|reader| {
        let topic = reader.string()?;
        reader.list(|reader| {
            let (partition, error) = (reader.i32()?, ErrorCode(reader.i16()?));
            // Offset and time in the log.
            reader.i64()?;
            reader.i64()?;
            Ok(((topic, partition), error))
        })
    })?;
    Ok(topics.into_iter().flatten().collect())
}

/// The versions of one request that a broker supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SupportedRequest {
    pub(super) key: i16,
    pub(super) oldest: i16,
    pub(super) newest: i16,
}

pub(super) fn parse_api_versions(response: &[u8]) -> Result<(ErrorCode, Vec<SupportedRequest>), MalformedResponse> {
    let mut reader = WireReader(response);
    let error = ErrorCode(reader.i16()?);
    let versions = reader
        .list(|reader| Ok(SupportedRequest { key: reader.i16()?, oldest: reader.i16()?, newest: reader.i16()? }))?;
    Ok((error, versions))
}

/// The mechanisms that a broker supports.
pub(super) fn parse_handshake_response(response: &[u8]) -> Result<(ErrorCode, Vec<String>), MalformedResponse> {
    let mut reader = WireReader(response);
    let error = ErrorCode(reader.i16()?);
    Ok((error, reader.list(|reader| reader.string().map(str::to_owned))?))
}

/// The response to a message of a mechanism.
pub(super) fn parse_authenticate_response(response: &[u8]) -> Result<(ErrorCode, &[u8]), MalformedResponse> {
    let mut reader = WireReader(response);
    let error = ErrorCode(reader.i16()?);
    // The text may repeat what was sent, so it is not used.
    reader.nullable_string()?;
    Ok((error, reader.bytes()?))
}

/// An error code of the protocol; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ErrorCode(pub(super) i16);

impl ErrorCode {
    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether a message of the batch is the reason: too large, in a batch that is too large, or invalid.
    pub(super) fn is_about_a_message(self) -> bool {
        matches!(self.0, 10 | 18 | 87)
    }

    /// Whether the same request may succeed later: the column "retriable" of the protocol guide.
    pub(super) fn is_retriable(self) -> bool {
        matches!(self.0, 2 | 3 | 5 | 6 | 7 | 8 | 9 | 13 | 19 | 20 | 56 | 74 | 75 | 78 | 89 | 100)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            2 => "CORRUPT_MESSAGE",
            3 => "UNKNOWN_TOPIC_OR_PARTITION",
            5 => "LEADER_NOT_AVAILABLE",
            6 => "NOT_LEADER_OR_FOLLOWER",
            7 => "REQUEST_TIMED_OUT",
            10 => "MESSAGE_TOO_LARGE",
            17 => "INVALID_TOPIC_EXCEPTION",
            18 => "RECORD_LIST_TOO_LARGE",
            19 => "NOT_ENOUGH_REPLICAS",
            20 => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
            29 => "TOPIC_AUTHORIZATION_FAILED",
            31 => "CLUSTER_AUTHORIZATION_FAILED",
            33 => "UNSUPPORTED_SASL_MECHANISM",
            34 => "ILLEGAL_SASL_STATE",
            35 => "UNSUPPORTED_VERSION",
            58 => "SASL_AUTHENTICATION_FAILED",
            _ => return write!(formatter, "error {}", self.0),
        };
        write!(formatter, "error {} {name}", self.0)
    }
}

/// The name in the logs and quotas of brokers.
const CLIENT_ID: &str = "portico";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_published_layout() {
        let mut request = begin(METADATA, 7);
        write_metadata_request(&mut request, ["a", "bc"].into_iter());
        let body = [&[0, 3, 0, 4, 0, 0, 0, 7, 0, 7][..], b"portico", &[0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 1]];
        let body = body.concat();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        assert_eq!(finish(request), [&length[..], &body].concat());
        let mut head = WireWriter::default();
        write_produce_head(&mut head, Acks::All, 2000);
        assert_eq!(head.0, [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0x07, 0xD0]);
    }

    #[test]
    fn metadata_says_which_broker_leads() {
        let mut response = WireWriter::default();
        response.i32(0);
        response.length(1);
        response.i32(4);
        response.string("broker");
        response.i32(9092);
        response.null_string();
        response.null_string();
        response.i32(4);
        response.length(1);
        response.i16(0);
        response.string("logs");
        response.i8(0);
        response.length(2);
        for leader in [4, -1] {
            response.i16(0);
            response.i32(if leader == 4 { 0 } else { 1 });
            response.i32(leader);
            response.length(1);
            response.i32(4);
            response.length(0);
        }
        let partitions = [(0, Some(4)), (1, None)].map(|(index, leader)| PartitionMetadata { index, leader });
        let expected = Metadata {
            brokers: vec![Broker { id: 4, host: "broker".to_owned(), port: 9092 }],
            topics: vec![TopicMetadata {
                error: ErrorCode(0),
                name: "logs".to_owned(),
                partitions: partitions.to_vec(),
            }],
        };
        assert_eq!(Metadata::parse(&response.0), Ok(expected));
        for length in 0..response.0.len() {
            assert_eq!(Metadata::parse(&response.0[..length]), Err(MalformedResponse), "{length}");
        }
    }

    #[test]
    fn errors_say_whether_another_attempt_may_succeed() {
        assert!(ErrorCode(0).is_none() && !ErrorCode(0).is_retriable());
        assert!(ErrorCode(6).is_retriable() && !ErrorCode(29).is_retriable() && !ErrorCode(10).is_retriable());
        assert_eq!(ErrorCode(29).to_string(), "error 29 TOPIC_AUTHORIZATION_FAILED");
        assert_eq!(ErrorCode(-1).to_string(), "error -1");
    }

    proptest::proptest! {
        /// Brokers may send anything.
        #[test]
        fn responses_are_parsed_or_malformed(bytes: Vec<u8>) {
            drop(Metadata::parse(&bytes));
            drop(parse_produce_response(&bytes));
            drop(parse_api_versions(&bytes));
            drop(parse_handshake_response(&bytes));
            let _is_read = parse_authenticate_response(&bytes).is_ok();
        }

        /// Responses whose lists have as many elements as their small numbers say.
        #[test]
        fn responses_of_small_numbers_are_parsed_or_malformed(
            numbers in proptest::collection::vec(-2_i32..4, 0..64),
        ) {
            let bytes: Vec<u8> = numbers.into_iter().flat_map(i32::to_be_bytes).collect();
            drop(Metadata::parse(&bytes));
            drop(parse_produce_response(&bytes));
        }
    }
}
