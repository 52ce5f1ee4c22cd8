//! The identity that a Pod or a machine has at AWS, as its environment variables describe it.

use std::fmt;

/// Credentials of AWS.
#[derive(Clone, PartialEq, Eq)]
pub struct AwsKeys {
    pub access_key: String,
    pub secret_key: String,
    /// Of temporary credentials.
    pub session_token: Option<String>,
}

/// What the environment says about the identity. With none of it, the machine may have a role, which its metadata
/// service knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsEnvironment {
    /// `AWS_REGION`, otherwise `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
    pub keys: Option<AwsKeys>,
    pub web_identity: Option<WebIdentity>,
    pub container: Option<ContainerEndpoint>,
}

/// A service account that may assume a role (IRSA).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebIdentity {
    /// `AWS_ROLE_ARN`
    pub role: String,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`
    pub token_file: String,
    /// `AWS_ROLE_SESSION_NAME`
    pub session: Option<String>,
}

/// The endpoint of ECS or of EKS Pod Identity, which has the credentials of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEndpoint {
    pub url: String,
    pub authorization: EndpointAuthorization,
}

/// The header `Authorization` of requests to a [`ContainerEndpoint`].
#[derive(Clone, PartialEq, Eq)]
pub enum EndpointAuthorization {
    Missing,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`
    Value(String),
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`
    File(String),
}

/// The endpoint of ECS, to which `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` is relative.
const ECS_ENDPOINT: &str = "http://169.254.170.2";

impl AwsEnvironment {
    /// Reads the variables, of which empty ones count as unset.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let keys = get("AWS_ACCESS_KEY_ID").zip(get("AWS_SECRET_ACCESS_KEY"));
        let web_identity = get("AWS_ROLE_ARN").zip(get("AWS_WEB_IDENTITY_TOKEN_FILE"));
        let relative = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{ECS_ENDPOINT}{path}"));
        let endpoint = relative.or_else(|| get("AWS_CONTAINER_CREDENTIALS_FULL_URI"));
        let authorization = match get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => EndpointAuthorization::File(file),
            None => get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
                .map_or(EndpointAuthorization::Missing, EndpointAuthorization::Value),
        };
        AwsEnvironment {
            region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")),
            keys: keys.map(|(access_key, secret_key)| AwsKeys {
                access_key,
                secret_key,
                session_token: get("AWS_SESSION_TOKEN"),
            }),
            web_identity: web_identity.map(|(role, token_file)| WebIdentity {
                role,
                token_file,
                session: get("AWS_ROLE_SESSION_NAME"),
            }),
            container: endpoint.map(|url| ContainerEndpoint { url, authorization }),
        }
    }
}

impl fmt::Debug for AwsKeys {
    /// Omits the secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AwsKeys").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

impl fmt::Debug for EndpointAuthorization {
    /// Omits the token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            EndpointAuthorization::Missing => "Missing",
            EndpointAuthorization::Value(_) => "Value",
            EndpointAuthorization::File(_) => "File",
        })
    }
}

/// Whether a text can be a region. Names of hosts contain it, so it has no dots.
pub fn is_region(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_describe_the_identity() {
        let read = |variables: &[(&str, &str)]| {
            AwsEnvironment::from_variables(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(read(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "")]), AwsEnvironment::default());
        let keys =
            read(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "hidden"), ("AWS_REGION", "eu-west-1")]);
        assert_eq!(keys.keys.as_ref().map(|keys| keys.secret_key.as_str()), Some("hidden"));
        assert_eq!(keys.region.as_deref(), Some("eu-west-1"));
        assert!(!format!("{keys:?}").contains("hidden"));
        let irsa = read(&[("AWS_ROLE_ARN", "arn:aws:iam::1:role/a"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")]);
        assert_eq!(irsa.web_identity.map(|identity| identity.token_file).as_deref(), Some("/token"));
        let ecs = read(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/a")]).container.unwrap();
        assert_eq!((&*ecs.url, ecs.authorization), ("http://169.254.170.2/v2/a", EndpointAuthorization::Missing));
        let eks = read(&[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t"),
        ]);
        assert_eq!(eks.container.unwrap().authorization, EndpointAuthorization::File("/t".to_owned()));
    }

    #[test]
    fn regions_are_parts_of_names() {
        assert!(is_region("eu-west-1") && !is_region("eu.example/") && !is_region("") && !is_region("a@b"));
    }
}
