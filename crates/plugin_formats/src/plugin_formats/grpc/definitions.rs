//! Definitions of Protocol Buffers in a configuration: the text of .proto files, or a set of compiled descriptors.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use protox::file::{File, FileResolver, GoogleFileResolver};

use crate::diagnostic::Diagnostic;

/// Where the definitions of a configuration are.
#[derive(Clone, Copy, Debug)]
pub struct Definitions<'c> {
    /// The text of a .proto file.
    pub proto: Option<&'c str>,
    /// The texts of the files that it imports, by the names in `import`.
    pub imports: &'c BTreeMap<String, String>,
    /// A `FileDescriptorSet` in base64.
    pub descriptor_set: Option<&'c str>,
}

impl Definitions<'_> {
    /// Compiles the definitions. `None` if there are none.
    pub fn load(&self) -> Result<Option<DescriptorPool>, Vec<Diagnostic>> {
        let problem = |field: &str, message: String, remedy: &str| vec![Diagnostic::in_config(field, message, remedy)];
        if self.proto.is_none() && !self.imports.is_empty() {
            let remedy = "set proto to the file that has the services";
            return Err(problem("imports", "has no effect without proto".to_owned(), remedy));
        }
        match (self.proto, self.descriptor_set) {
            (Some(_), Some(_)) => {
                let message = "is set together with proto".to_owned();
                Err(problem("descriptor_set", message, "set one of both"))
            }
            (Some(proto), None) => self.compile(proto).map(Some),
            (None, Some(set)) => {
                let compact: String = set.split_ascii_whitespace().collect();
                let Ok(set) = BASE64_STANDARD.decode(compact) else {
                    let remedy = "write the output of protoc --include_imports --descriptor_set_out in base64";
                    return Err(problem("descriptor_set", "is not base64".to_owned(), remedy));
                };
                let pool = DescriptorPool::decode(&*set).map_err(|error| {
                    let remedy = "compile the set with protoc --include_imports --descriptor_set_out";
                    problem("descriptor_set", format!("is not a complete set of descriptors: {error}"), remedy)
                })?;
                Ok(Some(pool))
            }
            (None, None) => Ok(None),
        }
    }

    fn compile(&self, proto: &str) -> Result<DescriptorPool, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        if proto.trim().ends_with(".proto") && !proto.contains(['\n', ';', '{']) {
            let message = "is the path of a file, which does not exist for Portico";
            let remedy = "write the text of the file, or refer to it: {configMapKeyRef: {name: NAME, key: KEY}}";
            return Err(vec![Diagnostic::in_config("proto", message, remedy)]);
        }
        let texts = self.imports.iter().map(|(name, text)| (format!("imports[{name}]"), text.as_str()));
        for (field, text) in texts.chain([("proto".to_owned(), proto)]) {
            if text.len() > MAX_TEXT {
                let message = format!("has {} bytes, more than {MAX_TEXT}", text.len());
                problems.push(Diagnostic::in_config(field, message, "leave out what no service uses"));
            } else if nesting(text) > MAX_NESTING {
                let message = format!("has braces and brackets nested more than {MAX_NESTING} deep");
                problems.push(Diagnostic::in_config(field, message, "define nested types at the top level"));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let google = GoogleFileResolver::new();
        let sources = ProtoFiles { proto: proto.to_owned(), imports: self.imports.clone(), google };
        let mut compiler = protox::Compiler::with_file_resolver(sources);
        compiler.include_imports(true);
        match compiler.open_file(MAIN) {
            Ok(compiler) => Ok(compiler.descriptor_pool()),
            Err(error) => {
                let field = match error.file() {
                    Some(name) if self.imports.contains_key(name) => format!("imports[{name}]"),
                    _ => "proto".to_owned(),
                };
                let remedy = if error.is_file_not_found() {
                    "add the text of the imported file to imports; google/protobuf/*.proto and annotations.proto, \
                     field_behavior.proto and http.proto of google/api are built in"
                } else {
                    "write a file that protoc accepts"
                };
                Err(vec![Diagnostic::in_config(field, error.to_string(), remedy)])
            }
        }
    }
}

/// The option `google.api.http` of a method.
pub fn http_rule(method: &MethodDescriptor) -> Option<DynamicMessage> {
    let extension = method.parent_pool().get_extension_by_name("google.api.http")?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    match options.get_extension(&extension).into_owned() {
        Value::Message(rule) => Some(rule),
        _ => None,
    }
}

/// The files that the compiler may open.
struct ProtoFiles {
    proto: String,
    imports: BTreeMap<String, String>,
    google: GoogleFileResolver,
}

impl FileResolver for ProtoFiles {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == MAIN {
            return File::from_source(name, &self.proto);
        }
        if let Some(text) = self.imports.get(name) {
            return File::from_source(name, text);
        }
        match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            Some((_, text)) => File::from_source(name, text),
            None => self.google.open_file(name),
        }
    }
}

/// How deep braces, brackets and parentheses are nested, outside of comments and strings.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut bytes) = (0_usize, 0, text.bytes().peekable());
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' | b'(' | b'<' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            b'"' | b'\'' => {
                while let Some(next) = bytes.next().filter(|next| *next != byte) {
                    if next == b'\\' {
                        bytes.next();
                    }
                }
            }
            b'/' if bytes.peek() == Some(&b'/') => {
                bytes.find(|next| *next == b'\n');
            }
            b'/' if bytes.peek() == Some(&b'*') => {
                bytes.next();
                let mut last = b' ';
                bytes.find(|next| std::mem::replace(&mut last, *next) == b'*' && *next == b'/');
            }
            _ => {}
        }
    }
    deepest
}

/// The name of the file in `proto`, in messages.
const MAIN: &str = "proto";

/// What fits into a ConfigMap.
const MAX_TEXT: usize = 1 << 20;

const MAX_NESTING: usize = 64;

/// The definitions that files with HTTP rules import: the numbers are those of google/api.
const BUILT_IN: [(&str, &str); 3] = [
    (
        "google/api/annotations.proto",
        r#"
syntax = "proto3";
package google.api;
import "google/api/http.proto";
import "google/protobuf/descriptor.proto";
extend google.protobuf.MethodOptions { HttpRule http = 72295728; }
"#,
    ),
    (
        "google/api/http.proto",
        r#"
syntax = "proto3";
package google.api;
message Http { repeated HttpRule rules = 1; bool fully_decode_reserved_expansion = 2; }
message HttpRule {
  string selector = 1;
  oneof pattern {
    string get = 2;
    string put = 3;
    string post = 4;
    string delete = 5;
    string patch = 6;
    CustomHttpPattern custom = 8;
  }
  string body = 7;
  string response_body = 12;
  repeated HttpRule additional_bindings = 11;
}
message CustomHttpPattern { string kind = 1; string path = 2; }
"#,
    ),
    (
        "google/api/field_behavior.proto",
        r#"
syntax = "proto3";
package google.api;
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { repeated FieldBehavior field_behavior = 1052 [packed = false]; }
enum FieldBehavior {
  FIELD_BEHAVIOR_UNSPECIFIED = 0;
  OPTIONAL = 1;
  REQUIRED = 2;
  OUTPUT_ONLY = 3;
  INPUT_ONLY = 4;
  IMMUTABLE = 5;
  UNORDERED_LIST = 6;
  NON_EMPTY_DEFAULT = 7;
  IDENTIFIER = 8;
}
"#,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = r#"
        syntax = "proto3"; package a;
        import "google/api/annotations.proto"; import "google/api/field_behavior.proto";
        import "google/protobuf/timestamp.proto"; import "b.proto";
        message M { google.protobuf.Timestamp at = 1 [(google.api.field_behavior) = REQUIRED]; b.N n = 2; }
        service S { rpc Get(M) returns (M) { option (google.api.http) = { get: "/v1/m" }; } }
    "#;

    fn imports() -> BTreeMap<String, String> {
        BTreeMap::from([("b.proto".to_owned(), r#"syntax = "proto3"; package b; message N {}"#.to_owned())])
    }

    #[test]
    fn files_and_sets_are_loaded() {
        let imports = imports();
        let definitions = Definitions { proto: Some(SERVICE), imports: &imports, descriptor_set: None };
        let pool = definitions.load().unwrap().unwrap();
        let set = BASE64_STANDARD.encode(pool.encode_to_vec());
        let none = BTreeMap::new();
        let loaded = Definitions { proto: None, imports: &none, descriptor_set: Some(&set) }.load().unwrap().unwrap();
        for pool in [pool, loaded] {
            let method = pool.get_service_by_name("a.S").unwrap().methods().next().unwrap();
            let rule = http_rule(&method).unwrap();
            assert_eq!(rule.get_field_by_name("get").unwrap().as_str(), Some("/v1/m"));
        }
        assert!(Definitions { proto: None, imports: &none, descriptor_set: None }.load().unwrap().is_none());
    }

    #[test]
    fn mistakes_are_reported_at_their_field() {
        let (none, imports) = (BTreeMap::new(), imports());
        let deep = format!("syntax = \"proto3\"; {}{}", "message M {".repeat(70), "}".repeat(70));
        let wrong = BTreeMap::from([("b.proto".to_owned(), "message".to_owned())]);
        for (proto, imports, set, field, text) in [
            (Some("protos/shop.proto"), &none, None, "config.proto", "path of a file"),
            (Some(SERVICE), &none, None, "config.proto", "b.proto"),
            (Some(SERVICE), &wrong, None, "config.imports[b.proto]", ""),
            (Some("syntax = \"proto3\"; message M { N n = 1; }"), &none, None, "config.proto", "N"),
            (Some(&deep), &none, None, "config.proto", "nested"),
            (Some(SERVICE), &none, Some("AAAA"), "config.descriptor_set", "together"),
            (None, &imports, None, "config.imports", "without proto"),
            (None, &none, Some("?"), "config.descriptor_set", "base64"),
            (None, &none, Some("AAAA"), "config.descriptor_set", "complete"),
        ] {
            let problems = Definitions { proto, imports, descriptor_set: set }.load().unwrap_err();
            assert_eq!(problems[0].field, field, "{problems:?}");
            assert!(problems[0].message.contains(text), "{problems:?}");
        }
    }

    #[test]
    fn comments_and_strings_are_not_nested() {
        for (text, expected) in [
            ("", 0),
            ("{[(<", 4),
            ("{}{}{}", 1),
            ("// {{{\n{", 1),
            ("/* {{{ **/ {", 1),
            ("\"{{\\\"{\" '{' {", 1),
            ("}}}{", 1),
            ("/", 0),
            ("\"", 0),
        ] {
            assert_eq!(nesting(text), expected, "{text}");
        }
    }
}
