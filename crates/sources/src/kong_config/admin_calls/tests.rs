//! Tests of scripts: what calls leave, and what is reported.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{ScriptContext, translate_admin_calls};
use crate::kong_config::TranslationSettings;
use crate::manifests::TranslatedFile;

/// The objects by kind and name, `None` for a rejected script, and the diagnostics as `line: message`.
fn translated(script: &str) -> (Option<BTreeMap<String, Value>>, Vec<String>) {
    let settings = TranslationSettings { namespace: "default".to_owned(), class: "portico".to_owned() };
    let schema = |name: &str| {
        let minute = json!({"type": "integer"});
        let list = json!({"type": "array", "items": {"type": "string"}});
        (name != "unknown").then(|| json!({"properties": {"minute": minute, "key_names": list}}))
    };
    let context = ScriptContext {
        variable: &|name| (name == "SECRET").then(|| "from the environment".to_owned()),
        file: &|name| (name == "cert.pem").then(|| "PEM\n".to_owned()),
        plugin_schema: &schema,
    };
    let TranslatedFile { objects, diagnostics } =
        translate_admin_calls(Path::new("setup.sh"), script, &settings, context);
    let named = objects.map(|objects| {
        let named = objects.into_iter().map(|object| {
            let (kind, name) = (&object.value["kind"], &object.value["metadata"]["name"]);
            (format!("{}/{}", kind.as_str().unwrap(), name.as_str().unwrap()), object.value)
        });
        named.collect()
    });
    let described = diagnostics.iter().map(|problem| {
        assert!(!problem.diagnostic.remedy.is_empty() && problem.position.excerpt.is_none());
        format!("{}: {}", problem.position.line, problem.diagnostic.message)
    });
    (named, described.collect())
}

fn objects(script: &str) -> BTreeMap<String, Value> {
    let (objects, problems) = translated(script);
    assert_eq!(problems, Vec::<String>::new());
    objects.expect("the script is accepted")
}

fn annotation<'o>(object: &'o Value, name: &str) -> &'o str {
    object["metadata"]["annotations"][format!("konghq.com/{name}")].as_str().unwrap_or_default()
}

#[test]
fn calls_make_the_same_objects_as_a_file() {
    let objects = objects(
        r#"#!/usr/bin/env bash
set -euo pipefail
ADMIN=${KONG_ADMIN:-http://localhost:8001}   # where Kong listens
JSON="Content-Type: application/json"

curl -s -X POST "$ADMIN/services" -d name=users --data-urlencode 'url=https://users.example/v1' -d retries=2 | jq .
curl -i -X POST $ADMIN/services/users/routes \
  -d 'name=users' \
  -d "paths[]=/users" -d paths[]=/people \
  -d methods=GET -d strip_path=false >/dev/null
curl -X PATCH "${ADMIN}/services/users" -d read_timeout=500 && echo done
curl -X POST $ADMIN/routes/users/plugins -d name=rate-limiting -d config.minute=5
curl -X POST $ADMIN/plugins -H "$JSON" -d '{"name": "key-auth", "service": {"name": "users"},
  "config": {"key_names": ["k"]}}'
curl -X PUT $ADMIN/consumers/ann -d custom_id=7
curl -X POST $ADMIN/consumers/ann/key-auth -d "key=$SECRET"
curl -X POST $ADMIN/consumers/ann/acls -d group=staff
curl -X POST $ADMIN/consumer_groups -d name=gold
curl -X POST $ADMIN/consumer_groups/gold/consumers -d consumer=ann
curl -X POST $ADMIN/upstreams -d name=pool -d healthchecks.active.healthy.interval=5
curl -X POST $ADMIN/upstreams/pool/targets -d target=192.0.2.1:80 -d weight=100
curl -X POST $ADMIN/services --json @- <<END
{"name": "pooled", "host": "pool", "port": 80}
END
curl -X PUT $ADMIN/certificates/c1 -F cert=@cert.pem -F key=@cert.pem -F 'snis[]=a.example'
curl $ADMIN/services
"#,
    );
    let service = &objects["Service/users"];
    assert_eq!(service["spec"]["externalName"], "users.example");
    let settings = ["retries", "read-timeout", "protocol", "path", "plugins"].map(|name| annotation(service, name));
    assert_eq!(settings, ["2", "500", "https", "/v1", "users-key-auth"]);
    let route = &objects["Ingress/users"];
    assert_eq!(route["spec"]["rules"][0]["http"]["paths"][1]["path"], "/people");
    assert_eq!((annotation(route, "methods"), annotation(route, "strip-path")), ("GET", "false"));
    assert_eq!(objects["KongPlugin/users-rate-limiting"]["config"], json!({"minute": 5}));
    assert_eq!(objects["KongPlugin/users-key-auth"]["config"], json!({"key_names": ["k"]}));
    let consumer = &objects["KongConsumer/ann"];
    assert_eq!((&consumer["custom_id"], &consumer["consumerGroups"]), (&json!("7"), &json!(["gold"])));
    assert_eq!(objects["Secret/ann-key-auth"]["stringData"]["key"], "from the environment");
    assert_eq!(objects["KongUpstreamPolicy/pool"]["spec"]["healthchecks"]["active"]["healthy"]["interval"], 5);
    assert_eq!(objects["EndpointSlice/pooled-1"]["endpoints"][0]["addresses"][0], "192.0.2.1");
    assert_eq!(objects["Secret/c1"]["stringData"]["tls.crt"], "PEM\n");
}

#[test]
fn later_calls_change_and_delete() {
    let objects = objects(
        "curl -XPOST k/services -d name=a -d host=a.example
        curl -XPATCH k/services/a -d url=http://b.example:81/x
        curl -XPOST k/services/a/routes -d name=r -d paths=/a
        curl -XPOST k/services/a/routes -d name=gone -d paths=/b
        curl -XDELETE k/routes/gone
        curl -XPOST k/plugins -d id=p1 -d name=cors -d route.name=r
        curl -XPATCH k/plugins/p1 -d enabled=false
        curl -XPUT k/services/a/routes/r -d paths=/c
        curl -XPOST k/consumers -d username=bob; curl -XPOST k/consumers/bob/acls -d group=x
        curl -XPOST k/consumers -d username=ann; curl -XPOST k/consumers/ann/acls -d group=x
        curl -XDELETE k/consumers/bob/acls/x
        curl -XPOST k/consumers -d username=off; curl -XPOST k/consumers/off/key-auth -d key=1
        curl -XDELETE k/consumers/off",
    );
    assert_eq!(objects["Service/a"]["spec"]["externalName"], "b.example");
    assert_eq!(annotation(&objects["Service/a"], "path"), "/x");
    assert_eq!(objects["Ingress/r"]["spec"]["rules"][0]["http"]["paths"][0]["path"], "/c");
    assert_eq!(objects["KongPlugin/r-cors"]["disabled"], true);
    let names: Vec<&str> = objects.keys().map(String::as_str).collect();
    let expected =
        ["Ingress/r", "KongConsumer/ann", "KongConsumer/bob", "KongPlugin/r-cors", "Secret/ann-acl", "Service/a"];
    assert_eq!(names, expected);
}

#[test]
fn entity_with_the_key_of_another_one_changes_nothing() {
    let (_, problems) = translated(
        "curl k/services -d id=1 -d name=a -d host=a.example
        curl k/services -d id=2 -d name=b -d host=b.example
        curl -X PUT k/services/2 -d name=a -d host=c.example
        curl -X PATCH k/services/2 -d name=a
        curl k/services/b/routes -d name=r -d paths=/b",
    );
    let refused = "a call before this one has created a in services, so Kong refuses it";
    assert_eq!(problems, [format!("3: {refused}"), format!("4: {refused}")]);
}

#[test]
fn what_is_not_understood_is_reported_with_its_line() {
    let (objects, problems) = translated(
        "ID=$(curl -s k/services/a | jq -r .id)
curl k/services -d name=a -d host=a.example
curl k/services/$ID/routes -d paths=/a
for name in b c; do
  curl k/services -d name=$name -d host=x
  if true; then curl k/services -d name=in-if; fi
done
deploy() {
  curl k/services -d name=in-function -d host=x
}
http POST k/services name=d
curl k/services -d name=a -d host=again
curl k/services/none/routes -d paths=/n
curl k/config -F config=@kong.yml
curl k/team/services -d name=w
curl k/services -d name=$UNSET
KEPT=k; unset KEPT -f; curl k/services -d name=$KEPT
curl k/services -T body.json
cat body.json | curl k/services -d @-
test -f x || curl k/services -d name=e -d host=e.example
curl -X DELETE k/routes/none
(curl k/services -d name=in-group -d host=x)
curl k/upstreams -d name=u
curl -X PUT k/upstreams/u/targets/none/healthy
curl k/services/a/routes -d name=last -d paths=/last
curl k/snis -d name=* -d certificate=none
exit 0
curl k/services -d name=after-exit -d host=x",
    );
    let expected = [
        "3: this call is not understood: the value that line 1 gives variable ID is not known",
        "4: the commands from `for` to its end are not read",
        "8: functions are not read",
        "11: command `http` is not understood",
        "12: a call before this one has created a in services, so Kong refuses it",
        "13: no call before this one that is understood has created \"none\" in services",
        "14: file \"kong.yml\" of this call cannot be read",
        "15: /team/services is no path of the Admin API whose calls are read",
        "16: this call is not understood: variable UNSET is not set",
        "17: it is not known what this command removes",
        "17: this call is not understood: variable KEPT is not set",
        "18: option -T of curl is not known",
        "19: command `cat` is not understood",
        "19: the data is the output of another command, which is not known",
        "20: command `test` is not understood",
        "20: this call is sent only if another command fails, which is not known",
        "21: no call before this one that is understood has created \"none\" in routes",
        "22: the commands from `(…)` to its end are not read",
        "24: /upstreams/u/targets/none/healthy is no path of the Admin API whose calls are read",
        "26: no call before this one that is understood has created \"none\" in certificates",
    ];
    assert_eq!(problems, expected);
    let names: Vec<String> = objects.unwrap().into_keys().collect();
    assert_eq!(names, ["Ingress/last", "Service/a"]);
}

#[test]
fn findings_of_entities_have_the_line_of_the_call() {
    let (objects, problems) = translated(
        "curl k/services -d name=a -d host=a.example\n\ncurl k/services/a/routes -d name=r -d paths=x\n\
         curl -X PATCH k/services/a -d port=many",
    );
    assert!(objects.is_none());
    let expected =
        ["4: this is a text, and not a whole number from 0 to 65535", "3: \"x\" does not start with a slash"];
    assert_eq!(problems, expected);
    let (objects, problems) = translated("\n\ncurl k/services -d 'name=a");
    assert_eq!((objects, problems), (None, vec!["3: this quote does not end".to_owned()]));
}
