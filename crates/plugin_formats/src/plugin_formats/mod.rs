//! Formats and languages that plugins read: JSON Schema, OpenAPI, GraphQL, XML, gRPC, and templates with expressions of
//! Lua. What clients send is read within limits of size, depth and steps.

pub mod graphql;
pub mod grpc;
pub mod json_schema;
pub mod openapi;
pub mod template;
pub mod unique_json;
pub mod xml;
