//! Measurements of logins: CPU time of each, and what their sessions take in Redis. They print figures;
//! docs/benchmarks.md has the command for those of a release.

use std::fs;

use serde_json::json;

use super::provider::ProviderOptions;
use super::{SHOP, Shop, start, user};
use crate::harness::program::Program;
use crate::harness::site::Site;
use crate::redis::server::RedisProcess;

/// Enough that the first login, which fetches documents and keys, does not matter.
const LOGINS: u32 = 300;

#[test]
#[ignore = "only in make test-full: it logs in 600 times, and measures instead of testing"]
fn logins_take_little_time() {
    let (_provider, shop) = start(|options| options, &json!({}));
    let (seconds, bytes) = log_in_often(&shop);
    println!("cookie: {:.2} ms of CPU time for each login, {bytes} bytes of cookies", seconds * 1000.0);
    println!("cookie: {:.0} logins in a second of one core", 1.0 / seconds);
    assert!(seconds < 0.1, "a login takes {seconds} s of CPU time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only in make test-full: it logs in 600 times, and measures instead of testing"]
async fn sessions_of_logins_take_little_memory() {
    let server = RedisProcess::start(&[]).await;
    let redis = json!({"session_storage": "redis", "redis": {"host": "127.0.0.1", "port": server.port}});
    let site = Site::new();
    let provider = ProviderOptions::for_site(&site).start();
    let shop = Shop::start(site, &provider.issuer, &redis);
    let before = server.used_memory();
    let (seconds, bytes) = log_in_often(&shop);
    let of_session = (server.used_memory() - before) / u64::from(LOGINS);
    println!("redis: {:.2} ms of CPU time for each login, {bytes} bytes of cookies", seconds * 1000.0);
    println!("redis: {of_session} bytes of memory for each session, {} MB for 100,000", of_session / 10);
    assert!(of_session < 10_000, "a session takes {of_session} bytes");
    assert!(bytes < 200, "the cookie has an id only: {bytes} bytes");
}

/// Logs in again and again in a new browser of one user, whom the provider knows after the first time. Returns the CPU
/// time of Portico for each login, in seconds, and the length of its cookies.
fn log_in_often(shop: &Shop) -> (f64, usize) {
    let mut browser = shop.logged_in("anna");
    let before = cpu_seconds(&shop.program);
    for _ in 0..LOGINS {
        browser.cookies.retain(|cookie| !cookie.is_of(SHOP));
        assert_eq!(user(&browser.open(&format!("{SHOP}/"))), "anna");
    }
    let seconds = (cpu_seconds(&shop.program) - before) / f64::from(LOGINS);
    let cookies = browser.cookies.iter().filter(|cookie| cookie.is_of(SHOP));
    (seconds, cookies.map(|cookie| cookie.name.len() + cookie.value.len()).sum())
}

/// The CPU time of a process so far (proc_pid_stat(5)).
fn cpu_seconds(program: &Program) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
    // The name in parentheses may contain spaces. Fields 14 and 15 are the ticks in user and kernel mode.
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().map(|index| fields[*index].parse::<f64>().unwrap()).sum();
    ticks / TICKS
}

/// Ticks in a second: 100 in all kernels of Linux, whatever their own frequency is (time(7)).
const TICKS: f64 = 100.0;
