//! `portico convert ingress-nginx`: reports which Ingresses of ingress-nginx Portico serves with the same responses.
//!
//! With `--kubernetes`, `live.rs` reads the objects of a cluster in place of files; with `--to manifests`, `drop_in.rs`
//! writes what serves the same Ingresses by Portico.
//!
//! ```text
//!   paths ─▶ assumptions.rs ─▶ ../../offline.rs: the compiler ─▶ diagnostics
//!               the class and the ConfigMap,                      │ findings.rs: without what the input lacks
//!               if the input lacks them                           ▼
//!                                     verdicts.rs ◀─ annotations.rs ◀─ snippets.rs
//!                                        │    ▲
//!                                        │    └── differences.rs: a table of what Portico intends (subject.rs)
//!   --args ─▶ args_file.rs ─▶ flags.rs ──┤
//!   ConfigMap ─▶ config_map.rs ──────────┤
//!                                        ▼
//!                                     MigrationReport ─ gateway_api.rs ─▶ manifest_output.rs: --to gateway-api
//! ```

mod annotations;
mod args_file;
mod assumptions;
mod config_map;
mod differences;
mod drop_in;
mod findings;
mod flags;
mod gateway_api;
mod live;
mod manifest_output;
mod snippets;
mod subject;
mod verdicts;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;

use self::args_file::ArgsFile;
use self::assumptions::Assumptions;
use self::drop_in::DropIn;
use self::gateway_api::{GatewayApiInput, GatewayApiOutput};
use self::live::LiveObjects;
use crate::api::ingress_nginx;
use crate::api::kong::annotations::INGRESS_CLASS;
use crate::api::names::INGRESS_CLASS_NAME;
use crate::api::networking::Ingress;
use crate::api::{Kind, Object};
use crate::app::ingress::nginx_classes;
use crate::app::offline::{self, FileProblems, OfflineSettings};
use crate::app::stdout::{print, reading};
use crate::args::{
    BudgetOptions, ConvertIngressNginxOptions, ExitStatus, GatewayOptions, IngressClassOptions, IngressSource,
    MigrationFormat, MigrationOutput, NginxOptions,
};
use crate::compile::Classes;
use crate::manifests::{ManifestUpdate, Manifests};
use crate::report::migration::{self, GatewayApiReport, MigrationReport, MigrationVerdict};
use crate::report::{self, ReportedDiagnostic};
use crate::schema::Channel;

/// Prints the report. The exit status shows whether something is left out or invalid.
pub(super) fn convert(mut options: ConvertIngressNginxOptions) -> anyhow::Result<ExitStatus> {
    let args = options.args.as_deref().map(ArgsFile::read).transpose()?.unwrap_or_default();
    ingress_nginx::set_prefixes(&args.annotation_prefixes());
    flags::set_classes(&args.flags, &mut options.classes);
    let LiveObjects { manifests, mut update, notes, is_incomplete } = match &options.source {
        IngressSource::Paths(paths) => {
            let mut manifests = Manifests::new(paths.clone(), Channel::Experimental);
            let update = reading(paths, || manifests.read());
            LiveObjects { manifests, update, notes: Vec::new(), is_incomplete: false }
        }
        IngressSource::Cluster(access) => live::read(access, &options, &args)?,
    };
    let unread = unread_files(&update);
    if !unread.is_empty() {
        // If stderr is closed, the exit status still shows the result.
        write!(io::stderr(), "{}", report::terminal(&unread, options.color_stderr)).ok();
    }
    let is_unreadable = update.diagnostics.iter().any(|problem| UNREADABLE.contains(&problem.reason()));

    let (mut report, output) = evaluate(&manifests, &mut update, &options, &args)?;
    report.notes.splice(0..0, notes);
    match &output {
        WrittenObjects::None => {}
        WrittenObjects::GatewayApi(objects) => manifest_output::write(objects, options.output.as_deref())?,
        WrittenObjects::DropIn(drop_in) => drop_in.write(options.output.as_deref())?,
    }
    write_report(&report, &options)?;

    let worst = report.worst();
    let is_unconverted = report.gateway_api.as_ref().is_some_and(GatewayApiReport::is_partial);
    let is_partial = worst >= MigrationVerdict::LeftOut || !unread.is_empty() || is_incomplete || is_unconverted;
    let differs = options.fail_on_differences && worst >= MigrationVerdict::Differs;
    Ok(if is_unreadable {
        ExitStatus::Usage
    } else if is_partial && !options.allow_partial || report.leaves_out_guard() || differs {
        ExitStatus::Rejected
    } else {
        ExitStatus::Success
    })
}

/// The objects of `--to`.
enum WrittenObjects {
    None,
    GatewayApi(Vec<Value>),
    DropIn(DropIn),
}

/// Compiles the objects as if Portico served them in place of ingress-nginx. Returns also the objects to write.
fn evaluate(
    manifests: &Manifests,
    update: &mut ManifestUpdate,
    options: &ConvertIngressNginxOptions,
    args: &ArgsFile,
) -> anyhow::Result<(MigrationReport, WrittenObjects)> {
    let Assumptions { mut notes, config_map, has_config } = assumptions::add(&mut update.batch, options, args)?;
    let settings = OfflineSettings {
        gateways: GatewayOptions::default(),
        ingress_class: IngressClassOptions {
            nginx: NginxOptions {
                classes: Some(options.classes.clone()),
                config_map: config_map.as_ref().map(|key| (key.namespace.to_string(), key.name.to_string())),
                default_backend: args.default_backend(),
                ssl_passthrough: flags::pass_tls_through(&args.flags),
                ..NginxOptions::default()
            },
            ..IngressClassOptions::of_class(INGRESS_CLASS_NAME.to_owned())
        },
        budgets: BudgetOptions::default(),
        for_cluster: false,
    };
    let FileProblems { diagnostics, control, .. } = offline::find_problems(manifests, update, settings);
    let store = &control.store;
    let classes = Classes { nginx: Some(nginx_classes(&options.classes)), ..Classes::default() };

    let (mut claimed, mut without_class, mut of_other_classes) = (Vec::new(), Vec::new(), 0);
    let mut hosts_of_others: BTreeMap<String, String> = BTreeMap::new();
    let rejected = verdicts::of_rejected(&diagnostics);
    for ingress in store.ingresses.values() {
        let class = ingress.spec.ingress_class_name.as_deref();
        if classes.claims_for_nginx(store, &ingress.meta, class) {
            claimed.push(Arc::clone(ingress));
            continue;
        }
        for host in ingress.spec.rules.iter().filter_map(|rule| rule.host.as_deref()) {
            hosts_of_others.insert(host.to_ascii_lowercase(), ingress.meta.key.to_string());
        }
        if has_no_class(ingress) {
            without_class.push(ingress.meta.key.to_string());
        } else {
            of_other_classes += 1;
        }
    }
    let passes_through = |ingress: &Arc<Object<Ingress>>| {
        subject::value(ingress, "ssl-passthrough").and_then(ingress_nginx::flag) == Some(true)
    };
    if args.flags.is_empty() && claimed.iter().any(passes_through) {
        notes.push(
            "Ingresses have ssl-passthrough: run Portico with --nginx-ssl-passthrough if ingress-nginx runs with \
             --enable-ssl-passthrough"
                .to_owned(),
        );
    }
    let no_keys = BTreeMap::new();
    let config = config_map.as_ref().and_then(|key| store.config_maps.get(key));
    let data = config.as_ref().map_or(&no_keys, |config| &config.data);
    let mut ingresses = verdicts::evaluate(&claimed, &diagnostics, data);
    verdicts::without(&mut ingresses, &rejected);
    ingresses.extend(rejected);
    ingresses.sort_by(|left, right| left.object.cmp(&right.object));
    if ingresses.is_empty() {
        let flags = "--nginx-class and --nginx-controller-class";
        notes.push(format!("No Ingress of ingress-nginx is in the input; check the paths, and {flags}"));
    }
    let (mut output, mut gateway_api) = (WrittenObjects::None, None);
    if options.to == Some(MigrationOutput::GatewayApi) {
        let (with_policies, routes) = GatewayApiInput::others(store);
        let GatewayApiOutput { objects: written, rows, differences, notes: more } =
            gateway_api::convert(&GatewayApiInput {
                ingresses: &claimed,
                verdicts: &ingresses,
                config: data,
                of_others: hosts_of_others,
                with_policies,
                routes,
                has_default_backend: args.default_backend().is_some(),
                service: &|key| store.services.get(key).cloned(),
            });
        output = WrittenObjects::GatewayApi(written);
        notes.extend(more);
        gateway_api = Some(GatewayApiReport { rows, differences });
    }
    let reported_config = config_map.as_ref().filter(|_| has_config);
    let is_of_nginx = |name: &&String| name.contains("ingress-nginx-admission");
    if options.to == Some(MigrationOutput::Manifests) {
        output = WrittenObjects::DropIn(DropIn::new(store, options, args, reported_config));
    }
    let report = MigrationReport {
        ingresses,
        flags: flags::rows(&args.flags),
        config_map_name: reported_config.map(ToString::to_string),
        config_map: reported_config.map(|key| config_map::rows(key, data)).unwrap_or_default(),
        notes,
        webhooks: update.webhooks.iter().filter(is_of_nginx).cloned().collect(),
        of_other_classes,
        without_class,
        gateway_api,
    };
    Ok((report, output))
}

fn has_no_class(ingress: &Object<Ingress>) -> bool {
    ingress.spec.ingress_class_name.is_none() && !ingress.meta.annotations.contains_key(INGRESS_CLASS)
}

/// Errors about files, about what is no object, and about objects that decide about all Ingresses. The report has those
/// about single Ingresses, and others do not matter.
fn unread_files(update: &ManifestUpdate) -> Vec<ReportedDiagnostic> {
    let decides = [Kind::ConfigMap, Kind::IngressClass].map(|kind| format!("{kind} "));
    let matters = |object: &String| decides.iter().any(|start| object.starts_with(start));
    let errors = update.diagnostics.iter().filter(|problem| problem.diagnostic.is_error());
    errors.filter(|problem| problem.object.as_ref().is_none_or(matters)).map(report::from_manifest).collect()
}

fn write_report(report: &MigrationReport, options: &ConvertIngressNginxOptions) -> anyhow::Result<()> {
    let text = match options.report {
        MigrationFormat::Text => migration::text(report),
        MigrationFormat::Json => migration::json(report),
        MigrationFormat::Markdown => migration::markdown(report),
    };
    let text = match &options.report_file {
        None => text,
        Some(file) => {
            fs::write(file, text)
                .with_context(|| format!("--report-file {}: cannot write the report", file.display()))?;
            migration::summary_line(report)
        }
    };
    if options.to.is_some() && options.output.is_none() {
        // Standard output has the objects. If stderr is closed, the exit status still shows the result.
        write!(io::stderr(), "{text}").ok();
        return Ok(());
    }
    print(&text)
}

/// The reasons of errors about a path that cannot be read.
const UNREADABLE: [&str; 3] = ["NotAFile", "NotFound", "Unreadable"];
