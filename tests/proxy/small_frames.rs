//! Request bodies in small chunks and frames: those that arrive together are joined, and none waits for the next one.

use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, RawConnection, frame, header_block};
use crate::harness::{Endpoint, EndpointStream, TestServer, routes_to, with_timeout};

/// Chunks that a client sends in one write.
const CHUNKS: usize = 4000;
const HEAD: &str = "POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n";

/// Reads chunks up to this number of bytes of data, or to the end of the body.
async fn read_chunks(stream: &mut EndpointStream, received: &mut Vec<u8>, max_bytes: usize) -> Vec<Vec<u8>> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    loop {
        let line_end = received.windows(2).position(|window| window == b"\r\n");
        let chunk = line_end.and_then(|end| {
            let size = usize::from_str_radix(std::str::from_utf8(&received[..end]).unwrap(), 16).unwrap();
            (received.len() >= end + 4 + size).then(|| (end + 2, size))
        });
        let Some((start, size)) = chunk else {
            let more = with_timeout("more of the body", stream.read_some()).await;
            received.extend(more.expect("the body is complete"));
            continue;
        };
        if size == 0 {
            return chunks;
        }
        chunks.push(received[start..start + size].to_vec());
        received.drain(..start + size + 2);
        if chunks.iter().map(Vec::len).sum::<usize>() >= max_bytes {
            return chunks;
        }
    }
}

/// An endpoint that responds with the number of chunks and the data of a body.
async fn counting_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        stream.head().await.unwrap();
        let mut received = stream.take_buffered();
        let chunks = read_chunks(&mut stream, &mut received, usize::MAX).await;
        let body = format!("{} {}", chunks.len(), String::from_utf8(chunks.concat()).unwrap());
        stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    })
    .await
}

fn assert_joined(response: &str, expected: &str) {
    let (count, body) = response.split_once(' ').unwrap();
    assert!(body == expected, "the body was changed: {body:?}");
    let count: usize = count.parse().unwrap();
    assert!(count <= CHUNKS / 20, "the endpoint got {count} chunks for {CHUNKS}");
}

fn digits() -> String {
    (0..CHUNKS).map(|number| char::from(b'0' + u8::try_from(number % 10).unwrap())).collect()
}

#[tokio::test]
async fn small_chunks_in_one_packet_are_joined() {
    let endpoint = counting_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let body = digits();
    let chunks: String = body.chars().map(|digit| format!("1\r\n{digit}\r\n")).collect();
    let mut client = server.connect().await;
    client.send(format!("{HEAD}{chunks}0\r\n\r\n")).await;
    assert_joined(&client.response().await.text(), &body);
}

#[tokio::test]
async fn small_http2_frames_in_one_packet_are_joined() {
    let endpoint = counting_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let body = digits();
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &header_block(&fields));
    body.bytes().for_each(|digit| bytes.extend(frame(DATA, 0, 1, &[digit])));
    bytes.extend(frame(DATA, END_STREAM, 1, b""));
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(bytes).await;
    let response = raw.wait_for("the response", |frame| frame.kind == DATA).await;
    assert_joined(std::str::from_utf8(&response.payload).unwrap(), &body);
}

#[tokio::test]
async fn small_chunk_does_not_wait_for_the_next() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await.unwrap();
        let mut received = stream.take_buffered();
        for _ in 0..10 {
            let chunks = read_chunks(&mut stream, &mut received, 1).await;
            stream.record(&String::from_utf8(chunks.concat()).unwrap());
        }
        read_chunks(&mut stream, &mut received, usize::MAX).await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(HEAD).await;
    // The client sends a chunk when the endpoint has the previous one.
    for number in 0..10 {
        client.send(format!("1\r\n{number}\r\n")).await;
        endpoint.log.wait_for("the chunk", |log| log.requests().len() > number).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(endpoint.log.requests().concat(), "0123456789");
}

#[tokio::test]
async fn trailers_follow_joined_chunks() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await.unwrap();
        let mut received = stream.take_buffered();
        let chunks = read_chunks(&mut stream, &mut received, usize::MAX).await;
        while !received.ends_with(b"\r\n\r\n") {
            received.extend(stream.read_some().await.unwrap());
        }
        stream.record(&format!("{:?} {:?}", String::from_utf8(chunks.concat()), String::from_utf8(received)));
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a.example\r\ntrailer: x-sum\r\ntransfer-encoding: \
             chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\nx-sum: 2\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(endpoint.log.requests(), [r#"Ok("ab") Ok("0\r\nx-sum: 2\r\n\r\n")"#]);
}
