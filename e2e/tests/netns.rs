//! Tests of network namespaces: isolation of equal addresses, and errors that say what is wrong.

use std::sync::Barrier;

use portico_e2e::netns::{Netns, ip};
use portico_e2e::scenario;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[test]
fn equal_addresses_are_isolated() {
    if !scenario::is_enabled() {
        return;
    }
    let names = ["one", "two"].map(|name| scenario::checkout_name(&format!("portico-test-{name}")));
    let namespaces = names.each_ref().map(Netns::named);
    for netns in &namespaces {
        // Removes leftovers of an interrupted test.
        netns.delete().unwrap();
        netns.create().unwrap();
    }
    let servers_listen = Barrier::new(namespaces.len());
    std::thread::scope(|scope| {
        for netns in &namespaces {
            scope.spawn(|| netns.run(async || connect_to_own_server(netns.name(), &servers_listen).await).unwrap());
        }
    });
    for netns in &namespaces {
        assert!(netns.exists());
        assert!(netns.processes().unwrap().is_empty());
        netns.delete().unwrap();
        netns.delete().unwrap();
        assert!(!netns.exists());
        assert!(netns.processes().unwrap().is_empty());
    }
}

/// Runs a server and clients on an address that is in use in both namespaces at the same time. Many tasks connect, so
/// that all threads of the runtime are tested.
async fn connect_to_own_server(name: &str, servers_listen: &Barrier) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:80").await;
    // The servers of both namespaces listen before a client connects.
    servers_listen.wait();
    let listener = listener?;
    let reply = name.to_owned();
    let server = tokio::spawn(async move {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().await?;
            stream.write_all(reply.as_bytes()).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let clients: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn(async {
                let mut received = String::new();
                TcpStream::connect("127.0.0.1:80").await?.read_to_string(&mut received).await?;
                Ok::<_, std::io::Error>(received)
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await??, name);
    }
    server.await??;
    Ok(())
}

#[test]
fn errors_have_the_command_and_its_output() {
    if !scenario::is_enabled() {
        return;
    }
    let error = ip(&["netns", "delete", "portico-test-none"]).unwrap_err().to_string();
    assert!(error.contains("ip netns delete portico-test-none: ") && error.contains("No such file"), "{error}");
    let error = Netns::named("portico-test-none").run(async || Ok(())).unwrap_err();
    assert!(format!("{error:#}").contains("cannot open /run/netns/portico-test-none"), "{error:#}");
}
