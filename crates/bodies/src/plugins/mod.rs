//! The plugins that change, convert or make requests and responses.

mod aggregate;
mod aws_lambda;
mod azure_functions;
mod compression;
mod degraphql;
mod grpc_gateway;
mod grpc_web;
mod jq;
mod post_function;
mod pre_function;
mod request_transformer;
mod request_transformer_advanced;
mod response_transformer;
mod response_transformer_advanced;
mod soap;

#[cfg(test)]
use crate::plugin_api::PluginRegistry;
use crate::plugin_api::{PluginKinds, RegisteredKind};

/// In alphabetical order. A new plugin needs a `mod` line and an entry `&RegisteredKind::<module::Plugin>::NEW` here.
pub static KINDS: PluginKinds = &[
    &RegisteredKind::<aggregate::Aggregate>::NEW,
    &RegisteredKind::<aws_lambda::AwsLambda>::NEW,
    &RegisteredKind::<azure_functions::AzureFunctions>::NEW,
    &RegisteredKind::<compression::Compression>::NEW,
    &RegisteredKind::<degraphql::DeGraphql>::NEW,
    &RegisteredKind::<grpc_gateway::GrpcGateway>::NEW,
    &RegisteredKind::<grpc_web::GrpcWeb>::NEW,
    &RegisteredKind::<jq::Jq>::NEW,
    &RegisteredKind::<post_function::PostFunction>::NEW,
    &RegisteredKind::<pre_function::PreFunction>::NEW,
    &RegisteredKind::<request_transformer::RequestTransformer>::NEW,
    &RegisteredKind::<request_transformer_advanced::RequestTransformerAdvanced>::NEW,
    &RegisteredKind::<response_transformer::ResponseTransformer>::NEW,
    &RegisteredKind::<response_transformer_advanced::ResponseTransformerAdvanced>::NEW,
    &RegisteredKind::<soap::Soap>::NEW,
];

/// These plugins and those that are tested together with them.
#[cfg(test)]
const REGISTRY: PluginRegistry = PluginRegistry { kinds: &[&KINDS, &portico_guards::plugins::KINDS], internal: &[] };
