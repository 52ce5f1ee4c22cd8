//! Chaos: a leader and a follower serve a polite client at a fixed rate, while one part of the site after another is
//! killed, slowed or broken, hostile clients flood the Gateway, and routes are edited.
//!
//! ```text
//!   polite client ──┐                    ┌──▶ endpoints, which are killed
//!   floods ─────────┼──▶ two replicas ───┼──▶ Redis, DNS
//!   probes ─────────┘         └── error injectors ──▶ API server ◀── edits
//! ```
//!
//! Each disruption waits for the condition that it causes, and then until both replicas have
//! recovered and serve an edit. The seed determines the order, so that a failure can be repeated.

mod disruption;
mod disruptions;
mod dns_server;
mod editor;
mod endpoints;
mod memory;
mod objects;
mod polite_client;
mod record;
mod redis_server;
mod site;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portico_load::backend::Backend;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use self::disruption::Disruption;
use self::dns_server::DnsServer;
use self::editor::Editor;
use self::endpoints::Endpoint;
use self::memory::{MAX_GROWTH, MemorySamples};
use self::objects::{Authority, CLIENT_HOST, EDITED_ROUTES};
use self::polite_client::{ClientSettings, PoliteClient};
use self::record::Recorder;
use self::redis_server::RedisServer;
use self::site::{ChaosSite, Replica};
use crate::cluster::{ADDRESS, Cluster};
use crate::portico;
use crate::progress::report;

/// How long, how fast and in which order.
#[derive(Clone, Debug, clap::Args)]
pub struct ChaosOptions {
    /// Duration; the first two minutes and the last one are without disruptions if it is longer than four minutes
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
    /// Determines the order of the disruptions
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Requests per second of the polite client
    #[arg(long, default_value_t = 1000)]
    pub rate: u32,
    /// Edits of routes per second
    #[arg(long, default_value_t = 50)]
    pub edits: u32,
    /// How long each disruption lasts after its condition holds, in seconds
    #[arg(long, default_value_t = 4.0)]
    pub hold: f64,
    /// Kinds of floods in each round; all if unset
    #[arg(long)]
    pub floods: Option<usize>,
    /// Run only disruptions whose name contains this
    #[arg(long, value_name = "WORD")]
    pub only: Option<String>,
}

/// The result of a run.
pub struct ChaosOutcome {
    /// The table of phases, the failures, and the memory of the replicas.
    pub report: String,
    /// Promises that were broken.
    pub broken: Vec<String>,
}

const ENDPOINTS: [&str; 3] = ["one", "two", "three"];
const MINUTE: Duration = Duration::from_secs(60);
/// Duration of the phases without disruptions in a short run.
const SHORT_CALM: Duration = Duration::from_secs(2);

/// Runs on a cluster with the CRDs of the Gateway API and without other objects.
pub async fn run(cluster: &mut Cluster, options: &ChaosOptions) -> Result<ChaosOutcome> {
    report(format_args!("chaos: seed {}", options.seed));
    migrate_pending_connections()?;
    portico::install_kong_crds(cluster).await?;
    let netns = cluster.netns().clone();
    let endpoints = ENDPOINTS.map(|name| Endpoint::start(&netns, name)).into_iter().collect::<Result<Vec<_>>>()?;
    let named = Endpoint::start(&netns, "named")?;
    let flooded = Backend::start((ADDRESS, 0).into(), "flooded").await?;
    let authority = Authority::create()?;
    // Before the replicas: only programs that start later use the DNS server.
    let dns = DnsServer::start(cluster).await?;
    let redis = RedisServer::start(cluster).await?;
    let replicas = [Replica::start(cluster, "one").await?, Replica::start(cluster, "two").await?];
    let gateway = objects::create(cluster, &endpoints, &named, flooded.address, &authority).await?;
    let tls = authority.client_config()?;
    let recorder = Arc::new(Recorder::new());
    let random = fastrand::Rng::with_seed(options.seed);
    let mut site = ChaosSite {
        cluster,
        replicas,
        endpoints,
        redis,
        dns,
        authority,
        gateway,
        recorder: Arc::clone(&recorder),
        random,
        mark: 0,
    };
    until_all_routes_are_served(&mut site).await.context("before the first phase")?;

    let editor = Editor::start(site.cluster, options.edits);
    recorder.begin_phase("begin");
    let settings = ClientSettings { netns, gateway, tls, rate: options.rate, recorder: Arc::clone(&recorder) };
    let begin = Instant::now();
    let client = PoliteClient::start(settings);
    let processes = RefCell::new([None; 2]);
    let memory = RefCell::new(MemorySamples::default());
    let outcome = tokio::select! {
        outcome = run_phases(&mut site, options, begin, &processes) => outcome,
        () = sample_memory(&recorder, &processes, &memory) => Ok(()),
    };
    let elapsed = begin.elapsed();
    let edits = editor.counts();
    drop(editor);
    client.stop()?;
    let mut broken = Vec::new();
    if let Err(error) = outcome {
        broken.push(format!("{error:#}"));
    }
    let (table, forbidden) = recorder.report();
    if forbidden > 0 {
        broken.push(format!("{forbidden} requests failed that had to be served"));
    }
    let rate = recorder.requests() as f64 / elapsed.as_secs_f64();
    let mut text = format!(
        "Chaos for {:.0} s with seed {}\n{table}{rate:.0} requests per second; {} edits, and {} edits that the API \
         server did not accept\n",
        elapsed.as_secs_f64(),
        options.seed,
        edits[0],
        edits[1],
    );
    compare_memory(&memory.borrow(), &mut text, &mut broken);
    // After a failure, a replica may not be running.
    for replica in &mut site.replicas {
        if replica.portico.process_id().is_some() {
            replica.portico.stop().await?;
        }
    }
    Ok(ChaosOutcome { report: text, broken })
}

/// Calm, disruptions in rounds, and calm again.
async fn run_phases(
    site: &mut ChaosSite<'_>,
    options: &ChaosOptions,
    begin: Instant,
    processes: &RefCell<[Option<u32>; 2]>,
) -> Result<()> {
    let update_processes = |site: &ChaosSite<'_>| {
        *processes.borrow_mut() = site.replicas.each_ref().map(|replica| replica.portico.process_id());
    };
    update_processes(site);
    let end = begin + Duration::from_secs(options.seconds);
    let has_minutes = options.seconds > 240;
    if has_minutes {
        sleep_until(begin + MINUTE).await;
        site.recorder.begin_phase("second minute");
        sleep_until(begin + 2 * MINUTE).await;
    } else {
        sleep(SHORT_CALM).await;
    }
    let last_calm = if has_minutes { MINUTE } else { SHORT_CALM };
    loop {
        for mut disruption in round(site, options)? {
            let name = disruption.name();
            site.recorder.begin_phase(&name);
            let started = Instant::now();
            disruption.begin(site).await.with_context(|| format!("{name}: begin"))?;
            let hold = Duration::from_secs_f64(options.hold).min(disruption.longest());
            sleep(hold).await;
            disruption.end(site).await.with_context(|| format!("{name}: end"))?;
            site.until_edits_are_served().await.with_context(|| format!("after {name}"))?;
            update_processes(site);
            report(format_args!("chaos: {name}, {:.1} s", started.elapsed().as_secs_f64()));
            if has_minutes && Instant::now() + last_calm >= end {
                break;
            }
        }
        // A short run has one round, however long it takes.
        if !has_minutes || Instant::now() + last_calm >= end {
            break;
        }
    }
    site.recorder.begin_phase("end");
    sleep(last_calm).await;
    until_all_routes_are_served(site).await.context("after the last phase")
}

/// The disruptions of one round, in the order that the seed determines.
fn round(site: &mut ChaosSite<'_>, options: &ChaosOptions) -> Result<Vec<Box<dyn Disruption>>> {
    let mut floods = disruption::hostile_clients()?;
    site.random.shuffle(&mut floods);
    floods.truncate(options.floods.unwrap_or(floods.len()));
    let mut disruptions = disruption::all();
    disruptions.append(&mut floods);
    site.random.shuffle(&mut disruptions);
    disruptions.retain(|disruption| options.only.as_ref().is_none_or(|word| disruption.name().contains(word)));
    ensure!(!disruptions.is_empty(), "no disruption has a name with {:?}", options.only);
    Ok(disruptions)
}

async fn until_all_routes_are_served(site: &mut ChaosSite<'_>) -> Result<()> {
    let edited = (0..EDITED_ROUTES).map(|number| format!("/edited-{number}"));
    for path in ["/steady", "/slow", "/limited", "/named"].map(str::to_owned).into_iter().chain(edited) {
        site.until_status_is(CLIENT_HOST, &path, 200).await?;
    }
    site.leader().await?;
    site.until_edits_are_served().await
}

async fn sample_memory(recorder: &Recorder, processes: &RefCell<[Option<u32>; 2]>, memory: &RefCell<MemorySamples>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut memory = memory.borrow_mut();
        memory.add(recorder.elapsed(), *processes.borrow());
        recorder.set_memory(memory.last());
    }
}

fn compare_memory(memory: &MemorySamples, text: &mut String, broken: &mut Vec<String>) {
    let Some(replicas) = memory.second_and_last_minute() else { return };
    for (name, [second, last]) in ["one", "two"].into_iter().zip(replicas) {
        *text += &format!("Replica {name}: {second:.1} MiB in the second minute, {last:.1} MiB in the last one\n");
        if last > second * MAX_GROWTH {
            broken.push(format!("the memory of replica {name} grew from {second:.1} to {last:.1} MiB"));
        }
    }
}

/// Lets the kernel move pending connections of a killed replica to the other one, because both use one address.
/// Clusters do not need this: each Pod has its own address.
fn migrate_pending_connections() -> Result<()> {
    std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").context("the kernel does not support tcp_migrate_req")
}
