//! Limits in Redis are exact: with one server, Sentinel and a cluster, and for two processes with two workers each.

use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use portico::plugin_chain::Chain;
use portico::plugin_chain::testing::TestRequest;
use serde_json::{Value, json};

use super::cluster;
use super::limits::replica;
use super::server::{ClusterServers, RedisProcess, SentinelProcess};
use super::services::TestServices;
use crate::harness::client::Connection;
use crate::harness::objects::GATEWAY;
use crate::harness::program::{Program, portico, run_arguments};
use crate::harness::site::Site;

/// The plugins with limits of this many requests at a server. Their windows do not end during a test, except at the end
/// of a month or year.
fn plugins(limit: u64, redis: &Value) -> Vec<(&'static str, Value)> {
    let advanced = |fields: Value| {
        let mut config = json!({
            "limit": [limit], "window_size": [31_536_000], "window_type": "fixed", "identifier": "ip",
            "strategy": "redis", "redis": redis,
        });
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    };
    vec![
        ("rate-limiting", json!({"year": limit, "limit_by": "ip", "policy": "redis", "redis": redis})),
        ("rate-limiting-advanced", advanced(json!({"sync_rate": 0}))),
        // Each request costs 1, whatever is in its query.
        ("graphql-rate-limiting-advanced", advanced(json!({"sync_rate": 0, "score_factor": 0.01}))),
        (
            "usage-plan",
            json!({
                "plans": [{"name": "free", "quotas": {"month": limit}}], "limit_by": "ip", "policy": "redis",
                "redis": redis,
            }),
        ),
    ]
}

const QUERY: &str = "/graphql?query=%7Ba%7D";

/// How many of these requests two replicas admit, which get them alternately.
async fn admitted(replicas: &[Arc<Chain>; 2], requests: usize) -> usize {
    let now = SystemTime::now();
    let outcomes = (0..requests).map(|index| async move {
        let mut request = TestRequest::get(QUERY);
        request.now = now;
        request.run(&replicas[index % 2]).await.reply.is_none()
    });
    futures_util::future::join_all(outcomes).await.into_iter().filter(|admitted| *admitted).count()
}

async fn assert_exact(servers: &str, redis: &Value) {
    let services = TestServices::resolving("redis.shop");
    for (plugin, config) in plugins(25, redis) {
        let replicas = [(); 2].map(|()| replica(plugin, &config, &services));
        assert_eq!(admitted(&replicas, 60).await, 25, "{plugin} with {servers}");
        assert_eq!(admitted(&replicas, 10).await, 0, "{plugin} with {servers}");
    }
    assert_eq!(services.diagnostic("KongPlugin/default/test"), None, "{servers}");
}

// docs/kong-compatibility.md, 5.2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_plugin_is_exact_with_each_kind_of_servers() {
    let server = RedisProcess::start(&[]).await;
    assert_exact("one server", &json!({"host": "redis.shop", "port": server.port, "timeout": 60_000})).await;

    let sentinel = SentinelProcess::start(server.port, &[]).await;
    server.redis_cli(&["FLUSHALL"]);
    let nodes = json!([{"host": "127.0.0.1", "port": sentinel.port}]);
    assert_exact(
        "Sentinel",
        &json!({"sentinel_master": "mymaster", "sentinel_role": "master", "sentinel_nodes": nodes, "timeout": 60_000}),
    )
    .await;
    assert_ne!(server.redis_cli(&["DBSIZE"]).trim(), "0", "the counters are at the master");

    let cluster = ClusterServers::start(3).await;
    assert_exact("a cluster", &cluster::settings(&cluster.nodes[1])).await;
}

/// Threads of clients send to both processes at the same time, over connections that their workers share.
#[tokio::test]
async fn two_processes_with_two_workers_admit_exactly_the_limit() {
    let server = RedisProcess::start(&[]).await;
    let redis = json!({"host": "127.0.0.1", "port": server.port, "timeout": 60_000});
    let mut plugins: Vec<_> =
        plugins(137, &redis).into_iter().map(|(plugin, config)| (plugin, plugin, config)).collect();
    let mut periodic = plugins[1].2.clone();
    periodic["sync_rate"] = json!(0.05);
    plugins.push(("periodic", "rate-limiting-advanced", periodic));
    let replicas = [(); 2].map(|()| start(&plugins));
    let addresses: Vec<String> = replicas.iter().map(|(site, _)| site.address_of("port")).collect();
    for (route, ..) in &plugins {
        let clients: Vec<_> = { addresses.iter().cycle().take(8) }
            .map(|address| {
                let (address, path) = (address.clone(), format!("/{route}{QUERY}"));
                thread::spawn(move || {
                    let mut connection = Connection::open(&address).unwrap();
                    let statuses = (0..40).map(|_| connection.get("shop.example", &path).unwrap().status);
                    statuses.collect::<Vec<u16>>()
                })
            })
            .collect();
        let statuses: Vec<u16> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let admitted = statuses.iter().filter(|status| **status == 200).count();
        let rejected = statuses.iter().filter(|status| **status == 429).count();
        println!("{route}: {admitted} of {} requests admitted with a limit of 137", statuses.len());
        assert_eq!(admitted + rejected, 320, "{route}: {statuses:?}");
        match *route {
            // Each replica counts in memory, and knows the requests of the other one a moment later.
            "periodic" => assert!((137..=274).contains(&admitted), "{admitted}"),
            _ => assert_eq!(admitted, 137, "{route}"),
        }
    }
}

/// Starts Portico with two workers and a route for each plugin.
fn start(plugins: &[(&str, &str, Value)]) -> (Site, Program) {
    let site = Site::new();
    let objects = plugins.iter().map(|(name, plugin, config)| {
        let plugin = json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": {"name": name},
            "plugin": plugin, "config": config,
        });
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name, "annotations": {"konghq.com/plugins": name}},
            "spec": {
                "parentRefs": [{"name": "good"}],
                "rules": [{
                    "matches": [{"path": {"value": format!("/{name}")}}], "backendRefs": [{"name": "echo", "port": 80}],
                }],
            },
        });
        format!("---\n{plugin}\n---\n{route}\n")
    });
    site.save("manifests/gateway.yaml", GATEWAY);
    site.save("manifests/plugins.yaml", &objects.collect::<String>());
    site.save("manifests/echo.yaml", ECHO);
    let mut command = portico(&site);
    let arguments = run_arguments(&site).into_iter();
    // The number of workers is the last one.
    command.args(arguments.rev().skip(1).collect::<Vec<_>>().into_iter().rev()).args(["2", "--access-log", "off"]);
    let program = Program::start(command);
    program.wait_started();
    (site, program)
}

const ECHO: &str = "apiVersion: v1
kind: Service
metadata: {name: echo, annotations: {portico.dev/address: @address@}}
spec: {ports: [{port: 80, targetPort: @echo@}]}
";
