//! Counts the instructions that each plugin adds to a request, with valgrind, and prints them as the table of
//! `docs/plugin-costs.md`. One Portico has a route for each case, so its start is paid once.

mod cases;
mod requests;
mod servers;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use self::cases::{CASES, Case, PLAIN};
use self::requests::{Client, Credentials, RepeatedRequest};
use self::servers::Servers;
use self::table::Row;
use crate::compare::callgrind;
use crate::server::objects::HostRoute;
use crate::server::portico::{Setup, counted_portico};
use crate::server::variant::ServerVariant;
use crate::server::{self, Server, Site};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The binary of Portico.
    #[arg(long)]
    portico: PathBuf,
    /// Count only cases whose name contains this, and the plain routes.
    #[arg(long)]
    case: Option<String>,
    /// The page whose table is replaced.
    #[arg(long, conflicts_with = "case")]
    page: Option<PathBuf>,
}

/// Counts all cases, and prints the table or writes it to the page.
pub async fn plugin_costs(options: &Options) -> Result<()> {
    let is_chosen = |case: &&'static Case| options.case.as_ref().is_none_or(|word| case.plugin.contains(word.as_str()));
    let cases: Vec<&'static Case> = PLAIN.iter().chain(CASES.iter().filter(is_chosen)).collect();
    let rows = count(&options.portico, &cases).await?;
    let Some(page) = &options.page else {
        print!("{}", table::render(&rows));
        return Ok(());
    };
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    fs::write(page, table::replace(&text, &rows)?)?;
    println!("{} has the new table", page.display());
    Ok(())
}

async fn count(portico: &Path, cases: &[&'static Case]) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let counts_file = folder.path().join("counts");
    let servers = Servers::start().await?;
    let credentials = Credentials::new()?;
    let objects = credentials.objects()
        + &cases.iter().enumerate().map(|(index, case)| objects(index, case, &servers)).collect::<String>();
    let site = Site {
        folder: folder.path(),
        backend: servers.http,
        key_pair: &server::write_certificate(folder.path())?,
        access_log: false,
        variant: ServerVariant::PLAIN,
    };
    let portico = counted_portico(&counts_file, &Setup { objects: &objects, ..Setup::new(portico, site) })?;
    portico.until_ready(async || Client::connect(portico.address, &host(0)).await).await?;
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for (index, case) in cases.iter().enumerate() {
        let request = credentials.request(case, &host(index))?;
        match count_case(&portico, &counts_file, case, &request).await {
            Ok(per_request) => {
                eprintln!("  {:<32} {:<40} {per_request:>8}", case.plugin, case.setting);
                rows.push(Row { case, per_request });
            }
            Err(error) => failures.push(format!("{}, {}: {error:#}", case.plugin, case.setting)),
        }
    }
    ensure!(failures.is_empty(), "{}\n{}", failures.join("\n"), portico.output());
    Ok(rows)
}

/// Returns the instructions of a request.
async fn count_case(portico: &Server, counts_file: &Path, case: &Case, request: &RepeatedRequest) -> Result<u64> {
    let mut client = Client::connect(portico.address, &host(0)).await?;
    client.send(request, case.status, WARM_UP).await?;
    callgrind::control(portico.process(), "--zero")?;
    client.send(request, case.status, REQUESTS).await?;
    Ok(callgrind::dump(portico.process(), counts_file)?.total / REQUESTS as u64)
}

/// The objects of a case: its plugin, and the route that has it.
fn objects(index: usize, case: &Case, servers: &Servers) -> String {
    let name = format!("case-{index}");
    let mut names: Vec<&str> = case.with.to_vec();
    let mut objects = String::new();
    if !case.plugin.is_empty() {
        let (plugin, config) = (case.plugin, servers.insert_ports(case.config));
        objects += &format!(
            "---\napiVersion: configuration.konghq.com/v1\nkind: KongPlugin\nmetadata: {{name: {name}}}\nplugin: \
             {plugin}\nconfig: {config}\n"
        );
        names.push(&name);
    }
    let host = host(index);
    objects + &HostRoute { name: &name, host: &host, plugins: &names, service: "backend", filters: "" }.to_yaml()
}

/// All hosts have the same length, so that routes differ only in their plugins.
fn host(index: usize) -> String {
    format!("c{index:02}.bench.example")
}

/// After these, connections are open, caches are filled and tokens are verified.
const WARM_UP: usize = 100;
const REQUESTS: usize = 1000;
