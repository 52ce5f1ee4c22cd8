//! The Grafana dashboards: the files in `charts/portico/dashboards` are generated from `dashboard/panels.rs`;
//! `UPDATE=1` writes them. tests/prometheus.rs runs each of the queries.

mod panels;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use panels::{DASHBOARDS, Dashboard, Panel, PanelForm, Row};
use serde_json::{Value, json};

const FOLDER: &str = "charts/portico/dashboards";

#[test]
fn dashboard_files_match_the_panels() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    for dashboard in DASHBOARDS {
        let (file, generated) = (folder.join(dashboard.file), format!("{:#}\n", json_of(dashboard)));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &generated).unwrap();
        }
        let written = fs::read_to_string(&file).unwrap_or_default();
        assert!(written == generated, "{file:?} differs from tests/dashboard/panels.rs; UPDATE=1 writes it");
    }
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), DASHBOARDS.iter().map(|one| one.file.to_owned()).collect());
}

/// Grafana overlays or drops such panels without a warning.
#[test]
fn panels_have_unique_ids_and_do_not_overlap() {
    for dashboard in DASHBOARDS {
        check_places(&json_of(dashboard));
    }
}

fn check_places(dashboard: &Value) {
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut occupied = BTreeSet::new();
    for panel in panels {
        let position = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(position("x") + position("w") <= GRID_WIDTH, "{panel}");
        for x in position("x")..position("x") + position("w") {
            for y in position("y")..position("y") + position("h") {
                assert!(occupied.insert((x, y)), "two panels are at {x}, {y}: {}", panel["title"]);
            }
        }
    }
}

/// Checks the requirements of Grafana's `dashboard_kind.cue`. Grafana imports unknown types, data sources and variables
/// without an error, but does not show such panels.
#[test]
fn grafana_can_import_the_dashboards() {
    for dashboard in DASHBOARDS {
        check_import(&json_of(dashboard));
    }
    let uids: BTreeSet<&str> = DASHBOARDS.iter().map(|dashboard| dashboard.uid).collect();
    assert_eq!(uids.len(), DASHBOARDS.len());
}

fn check_import(dashboard: &Value) {
    let uid = dashboard["uid"].as_str().unwrap();
    assert!(uid.len() <= 40 && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{uid}");
    assert!(dashboard.get("id").is_none(), "an id would refer to another dashboard");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    for variable in variables {
        assert!(["datasource", "query"].contains(&variable["type"].as_str().unwrap()), "{variable}");
    }
    let variable_names: BTreeSet<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    for panel in dashboard["panels"].as_array().unwrap() {
        let kind = panel["type"].as_str().unwrap();
        if kind == "row" {
            continue;
        }
        assert!(["timeseries", "stat", "table"].contains(&kind), "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        let ref_ids: BTreeSet<&str> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert_eq!(ref_ids.len(), targets.len(), "{panel}");
        for query_or_panel in targets.iter().chain([panel]) {
            assert_eq!(query_or_panel["datasource"], prometheus(), "{panel}");
        }
        for target in targets {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "");
            for name in query.split('$').skip(1) {
                let end = name.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(name.len());
                assert!(variable_names.contains(&name[..end]), "${} is not a variable: {query}", &name[..end]);
            }
        }
    }
}

/// All queries filter by job, and those of some rows also by route or backend.
#[test]
fn every_query_uses_the_variables() {
    for Row { title, filter, panels } in DASHBOARDS.iter().flat_map(|dashboard| dashboard.rows) {
        for Panel { title: panel, queries, .. } in *panels {
            assert!(!queries.is_empty() && !panel.is_empty(), "{title}, {panel}");
            for (query, _) in *queries {
                let selectors = query.matches("portico_").count() + query.matches("process_").count();
                assert_eq!(query.matches("job=~\"$job\"").count(), selectors, "{title}, {panel}: {query}");
                for name in ["route", "backend"] {
                    let expected = if *filter == Some(name) { selectors } else { 0 };
                    let found = query.matches(&format!("{name}=~\"${name}\"")).count();
                    assert_eq!(found, expected, "{title}, {panel}: {query}");
                }
            }
        }
    }
}

/// Columns of Grafana's grid.
const GRID_WIDTH: u64 = 24;
/// Height of each panel in rows of the grid.
const PANEL_HEIGHT: u64 = 8;

fn json_of(dashboard: &Dashboard) -> Value {
    let mut panels = Vec::new();
    let mut y = 0;
    for Row { title, panels: row_panels, .. } in dashboard.rows {
        let id = panels.len() + 1;
        let position = json!({"x": 0, "y": y, "w": GRID_WIDTH, "h": 1});
        panels.push(
            json!({"id": id, "type": "row", "title": title, "collapsed": false, "gridPos": position, "panels": []}),
        );
        y += 1;
        let mut x = 0;
        for definition in *row_panels {
            if x + definition.width > GRID_WIDTH {
                (x, y) = (0, y + PANEL_HEIGHT);
            }
            let position = json!({"x": x, "y": y, "w": definition.width, "h": PANEL_HEIGHT});
            panels.push(panel(panels.len() + 1, definition, &position));
            x += definition.width;
        }
        y += PANEL_HEIGHT;
    }
    let mut variables = vec![
        json!({"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}),
        variable("job", "Job", "label_values(portico_build_info, job)"),
    ];
    for (name, label) in [("route", "Route"), ("backend", "Backend")] {
        if dashboard.rows.iter().any(|row| row.filter == Some(name)) {
            let values = format!("label_values(portico_requests_total{{job=~\"$job\"}}, {name})");
            variables.push(variable(name, label, &values));
        }
    }
    json!({
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["portico", "gateway-api", "ingress"],
        "schemaVersion": 39,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        // The other dashboards, with the same time and variables.
        "links": [{
            "title": "Portico", "type": "dashboards", "tags": ["portico"], "asDropdown": true, "keepTime": true,
            "includeVars": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
        }],
        "templating": {"list": variables},
        "annotations": {"list": [{
            "name": "Starts", "enable": true, "iconColor": "blue", "datasource": prometheus(),
            "expr": "changes(process_start_time_seconds{job=~\"$job\"}[1m]) > 0", "titleFormat": "{{instance}} started",
        }]},
        "panels": panels,
    })
}

fn variable(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name, "label": label, "type": "query", "datasource": prometheus(), "refresh": 2, "sort": 1,
        "multi": true, "includeAll": true, "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]},
        "query": {"query": query, "refId": name},
    })
}

/// The data source that the dashboard variable selects.
fn prometheus() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// The JSON of a panel.
fn panel(id: usize, panel: &Panel, position: &Value) -> Value {
    let ref_ids = 'A'..='Z';
    let targets = ref_ids.zip(panel.queries).map(|(ref_id, (query, legend))| {
        let mut target = json!({
            "refId": ref_id.to_string(), "datasource": prometheus(), "editorMode": "code", "expr": query,
            "legendFormat": legend,
        });
        match panel.form {
            PanelForm::Lines => target["range"] = json!(true),
            PanelForm::Number => target["instant"] = json!(true),
            PanelForm::Table => (target["instant"], target["format"]) = (json!(true), json!("table")),
        }
        target
    });
    let (kind, options) = match panel.form {
        PanelForm::Lines => (
            "timeseries",
            json!({
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
        ),
        PanelForm::Number => ("stat", json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"})),
        PanelForm::Table => ("table", json!({"showHeader": true})),
    };
    json!({
        "id": id,
        "type": kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": prometheus(),
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": options,
        "targets": targets.collect::<Vec<_>>(),
    })
}
