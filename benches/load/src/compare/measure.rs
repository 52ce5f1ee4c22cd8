//! Measures one server with one case.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cases::{Case, Connections, TlsMode};
use super::figures::{Figures, Latency};
use crate::plan::Plan;
use crate::process::{Process, ServingProcesses};
use crate::report::Report;
use crate::run::{run, run_after_opening};
use crate::server::Server;

/// Measures at the fixed rate of the case, at full speed, and if the case asks for it, at half of the server's
/// capacity, each for this time.
pub(crate) async fn measure(server: &Server, case: &Case, duration: Duration) -> Result<Figures> {
    let processes = server.process().serving();
    let full_speed = case.plan(server, duration)?;
    let plan = Plan { rate: Some(case.rate), ..full_speed.clone() };
    // Warms up caches and connections to the backend.
    run(Plan { duration: WARM_UP, ..plan.clone() }).await;
    if case.tls_mode == TlsMode::Resumed {
        // The client gets a ticket for each of the connections that it opens at the same time.
        run(Plan { duration: WARM_UP, ..full_speed.clone() }).await;
    }
    let (paced, paced_cpu, _) = run_measured(&processes, plan.clone()).await?;
    let (full, full_cpu, generator_cpu) = run_measured(&processes, full_speed).await?;
    check_handshakes(server, case, &[&paced, &full])?;
    ensure!(paced.good > 0 && full.good > 0, "{} did not respond:\n{paced}{full}", server.name);
    let cpu_full = full_cpu.as_secs_f64() * 1e6 / full.good as f64;
    let mut bad = paced.failed + paced.wrong + full.failed + full.wrong;

    let mut latency = None;
    if case.at_half_load {
        // A server is at capacity when it uses its whole core, which the load generator may be too slow for.
        let capacity = (1e6 / cpu_full).min(full.per_second());
        let half = run_after_opening(Plan { rate: Some((capacity / 2.0) as u32), ..plan }, || ()).await;
        bad += half.failed + half.wrong;
        let micros = |share| half.percentile(share).as_secs_f64() * 1e6;
        latency = Some(Latency { p50: micros(0.5), p99: micros(0.99), p999: micros(0.999) });
    }
    Ok(Figures {
        cpu_paced: paced_cpu.as_secs_f64() * 1e6 / paced.good as f64,
        cpu_full,
        per_second: full.per_second(),
        busy: full_cpu.as_secs_f64() / full.elapsed.as_secs_f64(),
        load_busy: generator_cpu.as_secs_f64() / full.elapsed.as_secs_f64(),
        latency,
        resident: processes.resident()?,
        bad,
    })
}

/// Returns the report, and the CPU time of the server and of the load generator since all connections were open.
async fn run_measured(server: &ServingProcesses, plan: Plan) -> Result<(Report, Duration, Duration)> {
    let generator = Process(std::process::id());
    let mut before = None;
    let report = run_after_opening(plan, || before = server.cpu().ok().zip(generator.cpu().ok())).await;
    let (server_before, generator_before) = before.context("the CPU time cannot be read")?;
    let server_cpu = server.cpu()?.saturating_sub(server_before);
    let generator_cpu = generator.cpu()?.saturating_sub(generator_before);
    Ok((report, server_cpu, generator_cpu))
}

/// Fails if a case for full handshakes has resumed ones, or vice versa, which would invalidate its figures.
fn check_handshakes(server: &Server, case: &Case, reports: &[&Report]) -> Result<()> {
    let sum = |count: fn(&Report) -> u64| reports.iter().map(|report| count(report)).sum::<u64>();
    let (all, resumed) = (sum(|report| report.handshakes), sum(|report| report.resumed));
    let expected = match (case.connections, case.tls_mode) {
        (Connections::Single(_), TlsMode::Full) => all > 0 && resumed == 0,
        // Connections opened before the first ticket arrives cannot resume.
        (Connections::Single(_), TlsMode::Resumed) => all > 0 && resumed * 100 >= all * 98,
        _ => true,
    };
    ensure!(expected, "{}: {}: {resumed} of {all} handshakes were resumed", server.name, case.name);
    Ok(())
}

pub(crate) const WARM_UP: Duration = Duration::from_millis(300);
