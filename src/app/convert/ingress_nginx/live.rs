//! Reads from a cluster what the report needs: Ingresses, IngressClasses, the ConfigMaps that they and the flags name,
//! and the names of ValidatingWebhookConfigurations; Services for the Gateway API. It never reads a Secret.

use std::collections::BTreeSet;

use anyhow::{Context, bail};

use super::args_file::ArgsFile;
use super::assumptions::usual_config_map;
use super::drop_in;
use super::subject::value;
use crate::api::{Kind, ObjectKey};
use crate::app::cluster;
use crate::app::progress::CommandProgress;
use crate::args::{ClusterAccess, ConvertIngressNginxOptions, MigrationOutput};
use crate::k8s::{self, ApiConnection, ApiError, ListedObjects};
use crate::manifests::{ManifestUpdate, Manifests};
use crate::schema::Channel;
use crate::store::AnyObject;

/// Objects, and where they have been read.
pub(super) struct LiveObjects {
    /// Without files for those of a cluster.
    pub(super) manifests: Manifests,
    pub(super) update: ManifestUpdate,
    /// What could not be read: sentences without a full stop.
    pub(super) notes: Vec<String>,
    /// Whether an Ingress is among it.
    pub(super) is_incomplete: bool,
}

/// Reads the objects. An error if the Ingresses cannot be read, or the ConfigMap of the options.
pub(super) fn read(
    access: &ClusterAccess,
    options: &ConvertIngressNginxOptions,
    args: &ArgsFile,
) -> anyhow::Result<LiveObjects> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let (_, connection) = cluster::connect(access).await?;
        let mut live = LiveObjects {
            manifests: Manifests::new(Vec::new(), Channel::Experimental),
            update: ManifestUpdate::default(),
            notes: Vec::new(),
            is_incomplete: false,
        };
        live.read_ingresses(&connection, options).await?;
        live.read_kind(&connection, Kind::IngressClass).await;
        if options.to == Some(MigrationOutput::GatewayApi) {
            live.read_kind(&connection, Kind::Service).await;
        }
        live.read_config_maps(&connection, options, args).await?;
        live.read_webhooks(&connection).await;
        Ok(live)
    })
}

impl LiveObjects {
    async fn read_ingresses(
        &mut self,
        connection: &ApiConnection,
        options: &ConvertIngressNginxOptions,
    ) -> anyhow::Result<()> {
        let mut progress = CommandProgress::new(options.stderr_is_terminal);
        let mut show = |count| progress.show(|| format!("Read {count} Ingresses"));
        let listed = k8s::list_objects(connection, Kind::Ingress, &mut show).await;
        progress.clear();
        match listed {
            Ok(ListedObjects { objects, malformed }) => {
                self.update.batch.upserts.extend(objects);
                self.is_incomplete = !malformed.is_empty();
                let notes = malformed.into_iter().map(|(key, error)| format!("Ingress {key} cannot be read: {error}"));
                self.notes.extend(notes);
                Ok(())
            }
            Err(error) => bail!("cannot list Ingresses: {}", with_remedy(&error, "list", Kind::Ingress)),
        }
    }

    /// Reads a kind without which the report has assumptions.
    async fn read_kind(&mut self, connection: &ApiConnection, kind: Kind) {
        match k8s::list_objects(connection, kind, &mut |_| {}).await {
            Ok(listed) => self.update.batch.upserts.extend(listed.objects),
            Err(error) => {
                let error = with_remedy(&error, "list", kind);
                self.notes.push(format!("The {} of the cluster are not part of the input: {error}", kind.plural()));
            }
        }
    }

    async fn read_config_maps(
        &mut self,
        connection: &ApiConnection,
        options: &ConvertIngressNginxOptions,
        args: &ArgsFile,
    ) -> anyhow::Result<()> {
        let (usual_namespace, usual_name) = usual_config_map();
        let key = match (&options.config_map, args.config_map()) {
            (Some((namespace, name)), _) => ObjectKey::new(namespace, name),
            (None, Some((namespace, name))) => ObjectKey::new(namespace.unwrap_or(&usual_namespace), name),
            (None, None) => ObjectKey::new(&usual_namespace, &usual_name),
        };
        let mut others = self.annotated_config_maps();
        let mut data = args.config.clone();
        match k8s::read_object(connection, Kind::ConfigMap, &key).await {
            Ok(Some(config_map)) => {
                if let AnyObject::ConfigMap(settings) = &config_map {
                    data.clone_from(&settings.data);
                }
                self.update.batch.upserts.push(config_map);
            }
            Ok(None) => self.notes.push(format!(
                "ConfigMap {key} does not exist in the cluster; name that of ingress-nginx with --nginx-configmap"
            )),
            Err(error) if options.config_map.is_some() => {
                bail!("--nginx-configmap {key}: {}", with_remedy(&error, "get", Kind::ConfigMap));
            }
            Err(error) => self.add_unread(&key, &error),
        }
        let named = drop_in::named_config_maps(args, &data, &key.namespace).into_iter().map(|named| named.key);
        others.extend(named.filter(|key| is_name(&key.namespace) && is_name(&key.name)));
        others.remove(&key);
        for key in others {
            match k8s::read_object(connection, Kind::ConfigMap, &key).await {
                Ok(config_map) => self.update.batch.upserts.extend(config_map),
                Err(error) => self.add_unread(&key, &error),
            }
        }
        Ok(())
    }

    fn add_unread(&mut self, config_map: &ObjectKey, error: &ApiError) {
        let error = with_remedy(error, "get", Kind::ConfigMap);
        self.notes.push(format!("ConfigMap {config_map} is not part of the input: {error}"));
    }

    /// Those that annotations name.
    fn annotated_config_maps(&self) -> BTreeSet<ObjectKey> {
        let ingresses = self.update.batch.upserts.iter().filter_map(|object| match object {
            AnyObject::Ingress(ingress) => Some(ingress),
            _ => None,
        });
        let names = ingresses.flat_map(|ingress| {
            let values = NAME_CONFIG_MAPS.iter().filter_map(|name| value(ingress, name));
            values.map(|text| match text.trim().split_once('/') {
                Some((namespace, name)) => ObjectKey::new(namespace, name),
                None => ObjectKey::new(&ingress.meta.key.namespace, text.trim()),
            })
        });
        names.filter(|key| is_name(&key.namespace) && is_name(&key.name)).collect()
    }

    async fn read_webhooks(&mut self, connection: &ApiConnection) {
        match k8s::validating_webhooks(connection).await {
            Ok(names) => self.update.webhooks.extend(names),
            Err(ApiError::NotFound) => {}
            Err(error) => self.notes.push(format!(
                "ValidatingWebhookConfigurations are not part of the input: {error}; grant the verb list on \
                 validatingwebhookconfigurations of admissionregistration.k8s.io to see whether one of ingress-nginx \
                 is left"
            )),
        }
    }
}

/// Whether it can be part of the path of a request to the API server.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit()) && text.bytes().all(is_part)
}

/// An error with the permission that is missing.
fn with_remedy(error: &ApiError, verb: &str, kind: Kind) -> String {
    let remedy = match error {
        ApiError::Forbidden(_) => {
            let group = if kind.group().is_empty() { String::new() } else { format!(" of {}", kind.group()) };
            format!("grant the verb {verb} on {}{group}", kind.plural())
        }
        _ => "check the server and the credentials of the kubeconfig".to_owned(),
    };
    format!("{error}; {remedy}")
}

/// Annotations whose values name ConfigMaps.
const NAME_CONFIG_MAPS: &[&str] = &["auth-proxy-set-headers", "custom-headers", "fastcgi-params-configmap"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ingress_nginx;

    #[test]
    fn annotations_that_name_config_maps_exist() {
        for name in NAME_CONFIG_MAPS {
            assert!(ingress_nginx::has(name), "{name}");
        }
    }

    #[test]
    fn missing_permissions_are_named() {
        let denied = ApiError::Forbidden("no".to_owned());
        for (kind, verb, expected) in [
            (Kind::Ingress, "list", "forbidden: no; grant the verb list on ingresses of networking.k8s.io"),
            (Kind::ConfigMap, "get", "forbidden: no; grant the verb get on configmaps"),
        ] {
            assert_eq!(with_remedy(&denied, verb, kind), expected);
        }
    }

    #[test]
    fn names_cannot_leave_their_part_of_a_path() {
        for (name, expected) in
            [("a-b.c", true), ("0a", true), ("", false), ("../a", false), ("a/b", false), ("A", false)]
        {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }
}
