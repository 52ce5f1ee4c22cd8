//! A browser for tests: it keeps cookies by their names, and sends them with each request.

use std::net::SocketAddr;

use crate::harness::{Client, TestResponse};

#[derive(Clone, Debug, Default)]
pub(crate) struct Browser {
    pub(crate) cookies: Vec<(String, String)>,
}

impl Browser {
    /// Requests a page of `shop.example`.
    pub(crate) async fn get(&mut self, server: SocketAddr, target: &str) -> TestResponse {
        let accept = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
        self.send(server, &format!("GET {target} HTTP/1.1"), accept, "").await
    }

    /// Sends a request with these header lines, each of which ends with a line break.
    pub(crate) async fn send(
        &mut self,
        server: SocketAddr,
        request_line: &str,
        headers: &str,
        body: &str,
    ) -> TestResponse {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = if cookies.is_empty() { String::new() } else { format!("cookie: {}\r\n", cookies.join("; ")) };
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{request_line}\r\nhost: shop.example\r\n{cookies}{headers}{length}\r\n{body}");
        let mut client = Client::connect(server).await;
        client.send(&request).await;
        let response = client.response_to(&request).await;
        for line in response.head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")) {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(other, _)| other != name);
            if !line.contains("Max-Age=0") {
                assert!(line.contains("; HttpOnly") && value.len() <= 3700, "{line}");
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        response
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.cookies.iter().map(|(name, _)| &**name).collect()
    }
}
