//! Volumes of a Pod: mounts and their contents.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec, Secret, Volume, VolumeProjection,
};
use kube::{Api, Client};

use super::environment::pod_field;
use super::token::Tokens;

/// A volume at its path in the Pod's root.
#[derive(Clone, Debug)]
pub(crate) struct Mount {
    /// Relative to the Pod's root.
    pub(crate) path: PathBuf,
    pub(crate) content: VolumeContent,
}

#[derive(Clone, Debug)]
pub(crate) enum VolumeContent {
    /// A folder that the Pod writes to.
    Empty,
    /// Files from the API server, with their mode.
    Files { sources: Vec<FileSource>, mode: u32 },
}

/// The source of files.
#[derive(Clone, Debug)]
pub(crate) enum FileSource {
    Secret { name: String, items: Vec<KeyToPath>, optional: bool },
    ConfigMap { name: String, items: Vec<KeyToPath>, optional: bool },
    Token { path: String, audience: Option<String>, seconds: i64 },
    Fields(Vec<DownwardAPIVolumeFile>),
}

/// Contents of files by their paths in the volume.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The mounts of a container. The error names the unsupported volume.
pub(crate) fn mounts(spec: &PodSpec, container: &Container) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        if mount.sub_path.is_some() || mount.sub_path_expr.is_some() {
            return Err(format!("volumeMounts {}: subPath is not supported by this node", mount.name));
        }
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let volume =
            volume.ok_or_else(|| format!("volumeMounts {}: the Pod has no volume with this name", mount.name))?;
        let path = relative_path(mount.mount_path.trim_start_matches('/')).ok_or_else(|| {
            format!("volumeMounts {}: `{}` is outside of the container", mount.name, mount.mount_path)
        })?;
        mounts.push(Mount { path, content: VolumeContent::from_volume(volume)? });
    }
    Ok(mounts)
}

impl VolumeContent {
    fn from_volume(volume: &Volume) -> Result<VolumeContent, String> {
        if volume.empty_dir.is_some() {
            return Ok(VolumeContent::Empty);
        }
        let (sources, mode) = if let Some(secret) = &volume.secret {
            let name = secret.secret_name.clone().unwrap_or_default();
            (vec![FileSource::secret(name, &secret.items, secret.optional)], secret.default_mode)
        } else if let Some(map) = &volume.config_map {
            (vec![FileSource::config_map(map.name.clone(), &map.items, map.optional)], map.default_mode)
        } else if let Some(fields) = &volume.downward_api {
            (vec![FileSource::Fields(fields.items.clone().unwrap_or_default())], fields.default_mode)
        } else if let Some(projected) = &volume.projected {
            let sources = projected.sources.iter().flatten().map(FileSource::projected).collect::<Option<_>>();
            let supported = "secret, configMap, serviceAccountToken and downwardAPI";
            (
                sources.ok_or_else(|| format!("volumes {}: this node can only project {supported}", volume.name))?,
                projected.default_mode,
            )
        } else {
            let supported = "emptyDir, secret, configMap, downwardAPI and projected";
            return Err(format!("volumes {}: this node supports only {supported}", volume.name));
        };
        let mode = mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644);
        Ok(VolumeContent::Files { sources, mode })
    }
}

impl FileSource {
    fn secret(name: String, items: &Option<Vec<KeyToPath>>, optional: Option<bool>) -> FileSource {
        FileSource::Secret { name, items: items.clone().unwrap_or_default(), optional: optional == Some(true) }
    }

    fn config_map(name: String, items: &Option<Vec<KeyToPath>>, optional: Option<bool>) -> FileSource {
        FileSource::ConfigMap { name, items: items.clone().unwrap_or_default(), optional: optional == Some(true) }
    }

    /// A source of a projected volume; None if this node does not support it.
    fn projected(projection: &VolumeProjection) -> Option<FileSource> {
        if let Some(secret) = &projection.secret {
            return Some(FileSource::secret(secret.name.clone(), &secret.items, secret.optional));
        }
        if let Some(map) = &projection.config_map {
            return Some(FileSource::config_map(map.name.clone(), &map.items, map.optional));
        }
        if let Some(token) = &projection.service_account_token {
            let seconds = token.expiration_seconds.unwrap_or(3600);
            return Some(FileSource::Token { path: token.path.clone(), audience: token.audience.clone(), seconds });
        }
        let fields = projection.downward_api.as_ref()?;
        Some(FileSource::Fields(fields.items.clone().unwrap_or_default()))
    }

    /// Reads the current files. The error says what is missing.
    async fn read(&self, reader: &mut VolumeReader<'_>) -> Result<Files, String> {
        let namespace = reader.pod.metadata.namespace.as_deref().unwrap_or_default();
        match self {
            FileSource::Secret { name, items, optional } => {
                let api: Api<Secret> = Api::namespaced(reader.client.clone(), namespace);
                let data = api.get_opt(name).await.map_err(|error| format!("Secret {namespace}/{name}: {error}"))?;
                let data = data.map(|secret| bytes_by_key(secret.data));
                select_files(data, items, *optional).map_err(|error| format!("Secret {namespace}/{name} {error}"))
            }
            FileSource::ConfigMap { name, items, optional } => {
                let api: Api<ConfigMap> = Api::namespaced(reader.client.clone(), namespace);
                let data = api.get_opt(name).await.map_err(|error| format!("ConfigMap {namespace}/{name}: {error}"))?;
                let data = data.map(|map| {
                    let texts = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
                    texts.chain(bytes_by_key(map.binary_data)).collect()
                });
                select_files(data, items, *optional).map_err(|error| format!("ConfigMap {namespace}/{name} {error}"))
            }
            FileSource::Token { path, audience, seconds } => {
                let token = reader.tokens.current(reader.client, reader.pod, audience.as_deref(), *seconds).await?;
                Ok(Files::from([(file_path(path)?, token.into_bytes())]))
            }
            FileSource::Fields(items) => {
                let mut files = Files::new();
                for item in items {
                    let reference = item.field_ref.as_ref().ok_or("downwardAPI: this node supports only fieldRef")?;
                    let value = pod_field(reader.pod, &reference.field_path, reader.address)?;
                    files.insert(file_path(&item.path)?, value.into_bytes());
                }
                Ok(files)
            }
        }
    }
}

/// Reads the volumes of one Pod.
pub(crate) struct VolumeReader<'a> {
    pub(crate) client: &'a Client,
    pub(crate) pod: &'a Pod,
    pub(crate) address: Ipv4Addr,
    pub(crate) tokens: &'a mut Tokens,
}

impl VolumeReader<'_> {
    /// All files of a volume. If two sources have the same path, the later one takes precedence.
    pub(crate) async fn read(&mut self, sources: &[FileSource]) -> Result<Files, String> {
        let mut files = Files::new();
        for source in sources {
            files.extend(source.read(self).await?);
        }
        Ok(files)
    }
}

fn bytes_by_key(data: Option<BTreeMap<String, ByteString>>) -> BTreeMap<String, Vec<u8>> {
    data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
}

/// The files of a Secret or ConfigMap: those of `items`, or one per key.
fn select_files(data: Option<BTreeMap<String, Vec<u8>>>, items: &[KeyToPath], optional: bool) -> Result<Files, String> {
    let Some(mut data) = data else {
        return if optional { Ok(Files::new()) } else { Err("does not exist".to_owned()) };
    };
    if items.is_empty() {
        return data.into_iter().map(|(key, content)| Ok((file_path(&key)?, content))).collect();
    }
    let mut files = Files::new();
    for item in items {
        match data.remove(&item.key) {
            Some(content) => drop(files.insert(file_path(&item.path)?, content)),
            None if optional => {}
            None => return Err(format!("has no key `{}`", item.key)),
        }
    }
    Ok(files)
}

fn file_path(path: &str) -> Result<PathBuf, String> {
    relative_path(path).ok_or_else(|| format!("`{path}` is outside of the volume"))
}

/// A relative path without `..`.
fn relative_path(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let is_below = path.components().all(|component| matches!(component, Component::Normal(_)));
    (is_below && !path.as_os_str().is_empty()).then(|| path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Option<BTreeMap<String, Vec<u8>>> {
        Some(BTreeMap::from([("crt".to_owned(), b"certificate".to_vec()), ("key".to_owned(), b"key".to_vec())]))
    }

    fn item(key: &str, path: &str) -> KeyToPath {
        KeyToPath { key: key.to_owned(), path: path.to_owned(), ..KeyToPath::default() }
    }

    #[test]
    fn items_select_keys_and_paths() {
        for (data, items, optional, expected) in [
            (data(), vec![], false, Ok(vec!["crt", "key"])),
            (data(), vec![item("crt", "tls/server.crt")], false, Ok(vec!["tls/server.crt"])),
            (data(), vec![item("ca", "ca")], false, Err("has no key `ca`")),
            (data(), vec![item("ca", "ca")], true, Ok(vec![])),
            (data(), vec![item("crt", "../crt")], false, Err("is outside of the volume")),
            (data(), vec![item("crt", "/crt")], false, Err("is outside of the volume")),
            (None, vec![], false, Err("does not exist")),
            (None, vec![], true, Ok(vec![])),
        ] {
            let files = select_files(data, &items, optional);
            match (files, expected) {
                (Ok(files), Ok(expected)) => {
                    assert_eq!(files.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), expected);
                }
                (Err(error), Err(expected_error)) => assert!(error.contains(expected_error), "{error}"),
                (files, expected) => panic!("{items:?}: {files:?} instead of {expected:?}"),
            }
        }
    }
}
