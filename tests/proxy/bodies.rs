//! Bodies: large ones with back-pressure, slow ones, and ones that end too early.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Endpoint, Gate, to, within};

/// More than all buffers between the two ends together.
const LARGE: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn large_bodies_go_through_both_ways() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        let head = stream.head().await.unwrap();
        stream.note(&head);
        // An echo: as much comes back as goes in, at the same time.
        stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        let begun = stream.buffered();
        stream.send(begun).await;
        let (mut reader, mut writer) = stream.socket.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut client = gate.client().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    let (mut reader, mut writer) = client.socket.into_split();
    let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let expected = block.clone();
    let write = tokio::spawn(async move {
        for _ in 0..LARGE / block.len() {
            writer.write_all(&block).await.unwrap();
        }
        writer
    });
    within("the echo", async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reader.read_u8().await.unwrap());
        }
        let mut block = vec![0; expected.len()];
        for _ in 0..LARGE / block.len() {
            reader.read_exact(&mut block).await.unwrap();
            assert!(block == expected);
        }
        drop(write.await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_endpoint_back() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let sent = Arc::clone(&counter);
        async move {
            stream.request().await;
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
            let block = vec![b'x'; 64 * 1024];
            // Ends when the writing no longer moves on: that is the back-pressure, and there is no event for it.
            loop {
                let write = stream.socket.write_all(&block);
                if tokio::time::timeout(std::time::Duration::from_millis(500), write).await.is_err() {
                    break;
                }
                sent.fetch_add(block.len(), Ordering::SeqCst);
            }
            stream.note("stalled");
            stream.rest().await;
        }
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    endpoint.log.until("the stall", |log| log.requests().len() == 2).await;
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < LARGE / 2, "{sent} bytes went into nobody's hands");
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_not_passed_off_as_whole() {
    // (answer up to where the endpoint closes, request's version)
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ] {
        for version in ["1.1", "1.0"] {
            let endpoint = Endpoint::scripted(move |mut stream, _| async move {
                stream.request().await;
                stream.send(answer).await;
            })
            .await;
            let gate = Gate::open(to(endpoint.address)).await;
            let mut client = gate.client().await;
            client.send(format!("GET / HTTP/{version}\r\nhost: a\r\n\r\n")).await;
            match client.rest().await {
                // A reset says it to every client.
                Err(_) => {}
                Ok(bytes) => {
                    let text = String::from_utf8(bytes).unwrap();
                    assert!(!text.ends_with("0\r\n\r\n"), "{text:?}");
                    let framed = text.contains("content-length: 10") || text.contains("transfer-encoding: chunked");
                    assert!(framed || text.is_empty(), "the end of the connection looks like the end of {text:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_is_cut_short_is_not_passed_off_as_whole() {
    for body in ["content-length: 10\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let endpoint = Endpoint::scripted(|mut stream, _| async move {
            stream.head().await;
            // How much came is the network's business; that it was not all is ours.
            let request = stream.request().await;
            stream.note(if request.is_some() { "whole" } else { "cut" });
        })
        .await;
        let gate = Gate::open(to(endpoint.address)).await;
        let mut client = gate.client().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{body}")).await;
        client.socket.shutdown().await.unwrap();
        endpoint.log.until("the end of the request", |log| !log.requests().is_empty()).await;
        assert_eq!(endpoint.log.requests(), ["cut"]);
    }
}

#[tokio::test]
async fn expect_continue_waits_for_the_endpoint_to_read() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!(client.answer(true).await.status, 100);
    client.send("abc").await;
    assert_eq!(client.answer(false).await.status, 200);
    assert!(!endpoint.log.requests()[0].contains("expect"));

    // Nobody is asked to send a body that nobody will read.
    let gate = Gate::open(vec![]).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 404);
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_over() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.send("HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch").await;
        stream.rest().await;
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nsome").await;
    let answer = client.answer(false).await;
    assert_eq!((answer.status, answer.text()), (413, "much".to_owned()));
}

#[tokio::test]
async fn slow_ends_get_there_too() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        for byte in "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".chars() {
            stream.send(byte.to_string()).await;
            tokio::task::yield_now().await;
        }
        stream.rest().await;
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut client = gate.client().await;
    for byte in "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".chars() {
        client.send(byte.to_string()).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer(false).await.text(), "ok");
    assert!(endpoint.log.requests()[0].ends_with("\r\n\r\nabc"));
}
