//! The security context of a container: users, groups and capabilities.

use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext};

/// The merged security contexts of Pod and container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Privileges {
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// The group that may read and write all volumes.
    pub(crate) group_of_volumes: Option<u32>,
    /// Capabilities that neither the program nor its children can have.
    pub(crate) dropped: Vec<&'static str>,
    pub(crate) may_escalate: bool,
    /// Only volumes are writable.
    pub(crate) read_only_root: bool,
}

/// All capabilities of the kernel, and whether containers have them by default.
const CAPABILITIES: &[(&str, bool)] = &[
    ("audit_control", false),
    ("audit_read", false),
    ("audit_write", true),
    ("block_suspend", false),
    ("bpf", false),
    ("checkpoint_restore", false),
    ("chown", true),
    ("dac_override", true),
    ("dac_read_search", false),
    ("fowner", true),
    ("fsetid", true),
    ("ipc_lock", false),
    ("ipc_owner", false),
    ("kill", true),
    ("lease", false),
    ("linux_immutable", false),
    ("mac_admin", false),
    ("mac_override", false),
    ("mknod", true),
    ("net_admin", false),
    ("net_bind_service", true),
    ("net_broadcast", false),
    ("net_raw", true),
    ("perfmon", false),
    ("setfcap", true),
    ("setgid", true),
    ("setpcap", true),
    ("setuid", true),
    ("sys_admin", false),
    ("sys_boot", false),
    ("sys_chroot", true),
    ("sys_module", false),
    ("sys_nice", false),
    ("sys_pacct", false),
    ("sys_ptrace", false),
    ("sys_rawio", false),
    ("sys_resource", false),
    ("sys_time", false),
    ("sys_tty_config", false),
    ("syslog", false),
    ("wake_alarm", false),
];

impl Privileges {
    /// The container's settings take precedence over the Pod's, and those over the image's.
    pub(crate) fn from_spec(spec: &PodSpec, container: &Container, user_of_image: u32) -> Result<Privileges, String> {
        let pod_context = spec.security_context.clone().unwrap_or_default();
        let context = container.security_context.clone().unwrap_or_default();
        if context.privileged == Some(true) {
            return Err("spec.containers[0].securityContext.privileged: not supported by this node".to_owned());
        }
        let user = parse_id("runAsUser", context.run_as_user.or(pod_context.run_as_user))?.unwrap_or(user_of_image);
        if context.run_as_non_root.or(pod_context.run_as_non_root) == Some(true) && user == 0 {
            return Err("securityContext.runAsNonRoot: the container would run as root; set runAsUser".to_owned());
        }
        // The default is the image's user ID, since its group has the same ID.
        let group = parse_id("runAsGroup", context.run_as_group.or(pod_context.run_as_group))?.unwrap_or(user_of_image);
        let mut groups = Vec::new();
        for group in pod_context.supplemental_groups.unwrap_or_default() {
            groups.extend(parse_id("supplementalGroups", Some(group))?);
        }
        let group_of_volumes = parse_id("fsGroup", pod_context.fs_group)?;
        groups.extend(group_of_volumes);
        Ok(Privileges {
            user,
            group,
            groups,
            group_of_volumes,
            dropped: missing_capabilities(&context)?,
            may_escalate: context.allow_privilege_escalation != Some(false),
            read_only_root: context.read_only_root_filesystem == Some(true),
        })
    }
}

/// The capabilities that a container does not have: it drops them, or neither the defaults nor `add` contain them.
fn missing_capabilities(context: &SecurityContext) -> Result<Vec<&'static str>, String> {
    let capabilities = context.capabilities.clone().unwrap_or_default();
    let parse_all = |names: Option<Vec<String>>| -> Result<Vec<String>, String> {
        let names = names.unwrap_or_default().into_iter().map(|name| parse_capability(&name));
        names.collect()
    };
    let (to_add, to_drop) = (parse_all(capabilities.add)?, parse_all(capabilities.drop)?);
    let contains = |names: &[String], name: &str| names.iter().any(|other| other == name);
    let has_all = |names: &[String]| contains(names, "all");
    let is_kept = |name: &str, is_default: bool| {
        // Like container runtimes: individual names take precedence over `ALL`, and `add` over `drop`.
        contains(&to_add, name)
            || (!contains(&to_drop, name) && (has_all(&to_add) || (is_default && !has_all(&to_drop))))
    };
    Ok(CAPABILITIES.iter().filter(|(name, is_default)| !is_kept(name, *is_default)).map(|(name, _)| *name).collect())
}

fn parse_capability(name: &str) -> Result<String, String> {
    let lower = name.to_ascii_lowercase();
    let lower = lower.strip_prefix("cap_").unwrap_or(&lower);
    if lower != "all" && !CAPABILITIES.iter().any(|(name, _)| *name == lower) {
        return Err(format!("securityContext.capabilities: unknown capability `{name}`"));
    }
    Ok(lower.to_owned())
}

fn parse_id(field: &str, id: Option<i64>) -> Result<Option<u32>, String> {
    let id = id.map(|id| {
        u32::try_from(id).map_err(|_| format!("securityContext.{field}: {id} is not a valid user or group ID"))
    });
    id.transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn privileges(pod: &Value, container: &Value) -> Result<Privileges, String> {
        let container = json!({ "name": "main", "securityContext": container });
        let spec = json!({ "containers": [container], "securityContext": pod });
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        Privileges::from_spec(&spec, &spec.containers[0], 65532)
    }

    #[test]
    fn container_settings_override_pod_and_image() {
        for (pod, container, expected) in [
            (json!({}), json!({}), (65532, 65532)),
            (json!({ "runAsUser": 1, "runAsGroup": 2 }), json!({}), (1, 2)),
            (json!({ "runAsUser": 1, "runAsGroup": 2 }), json!({ "runAsUser": 3, "runAsGroup": 4 }), (3, 4)),
        ] {
            let privileges = privileges(&pod, &container).unwrap();
            assert_eq!((privileges.user, privileges.group), expected, "{pod} {container}");
        }
        let error = privileges(&json!({ "runAsUser": 0, "runAsNonRoot": true }), &json!({})).unwrap_err();
        assert!(error.contains("runAsNonRoot"), "{error}");
    }

    #[test]
    fn capabilities_are_added_to_and_dropped_from_defaults() {
        for (capabilities, kept) in [
            (json!({}), vec!["chown", "net_bind_service"]),
            (json!({ "drop": ["ALL"] }), vec![]),
            (json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }), vec!["net_bind_service"]),
            (json!({ "drop": ["CHOWN"], "add": ["CAP_NET_ADMIN"] }), vec!["net_admin", "net_bind_service"]),
        ] {
            let privileges = privileges(&json!({}), &json!({ "capabilities": capabilities })).unwrap();
            for name in ["chown", "net_admin", "net_bind_service"] {
                assert_eq!(!privileges.dropped.contains(&name), kept.contains(&name), "{capabilities}: {name}");
            }
        }
        let error = privileges(&json!({}), &json!({ "capabilities": { "add": ["FLY"] } })).unwrap_err();
        assert!(error.contains("unknown capability `FLY`"), "{error}");
    }
}
