//! Functions that are written in the language itself. They are parsed where a program uses them.

/// The definition of a function, which may use only functions of the library and built-in ones.
pub(super) fn source(name: &str, arity: usize) -> Option<&'static str> {
    let definitions = LIBRARY.iter();
    let mut found = definitions.filter(|(defined, count, _)| *defined == name && *count == arity);
    found.next().map(|(_, _, source)| *source)
}

/// Name, number of parameters, and the definition without `def`.
const LIBRARY: &[(&str, usize, &str)] = &[
    ("values", 0, "values: select(. != null);"),
    ("nulls", 0, "nulls: select(. == null);"),
    ("booleans", 0, "booleans: select(type == \"boolean\");"),
    ("numbers", 0, "numbers: select(type == \"number\");"),
    ("strings", 0, "strings: select(type == \"string\");"),
    ("arrays", 0, "arrays: select(type == \"array\");"),
    ("objects", 0, "objects: select(type == \"object\");"),
    ("iterables", 0, "iterables: select(type == \"array\" or type == \"object\");"),
    ("scalars", 0, "scalars: select(type != \"array\" and type != \"object\");"),
    ("map", 1, "map(f): [.[] | f];"),
    ("map_values", 1, "map_values(f): .[] |= f;"),
    ("to_entries", 0, "to_entries: [keys_unsorted[] as $k | {key: $k, value: .[$k]}];"),
    (
        "from_entries",
        0,
        "from_entries: reduce .[] as $x ({}; . + {($x | if type == \"object\" then (if has(\"key\") then .key \
         elif has(\"k\") then .k elif has(\"name\") then .name elif has(\"Name\") then .Name \
         elif has(\"Key\") then .Key else .K end) else . end | if type == \"string\" then . else tojson end): \
         ($x | if has(\"value\") then .value elif has(\"v\") then .v else .Value end)});",
    ),
    ("with_entries", 1, "with_entries(f): to_entries | map(f) | from_entries;"),
    ("walk", 1, "walk(f): def w: if type == \"object\" or type == \"array\" then map_values(w) else . end | f; w;"),
    ("del", 1, "del(f): delpaths([path(f)]);"),
    ("paths", 0, "paths: path(..) | select(length > 0);"),
    ("paths", 1, "paths(f): path(.. | select(f)) | select(length > 0);"),
    ("leaf_paths", 0, "leaf_paths: paths(scalars);"),
    ("pick", 1, "pick(f): . as $top | reduce path(f) as $p (null; setpath($p; $top | getpath($p)));"),
    ("first", 0, "first: .[0];"),
    ("last", 0, "last: .[-1];"),
    ("nth", 1, "nth($n): .[$n];"),
    ("nth", 2, "nth($n; f): first(skip($n; f));"),
    ("any", 0, "any: any(.[]; .);"),
    ("any", 1, "any(f): any(.[]; f);"),
    ("any", 2, "any(g; f): isempty(first(g | select(f))) | not;"),
    ("all", 0, "all: all(.[]; .);"),
    ("all", 1, "all(f): all(.[]; f);"),
    ("all", 2, "all(g; f): isempty(first(g | select(f | not)));"),
    ("add", 1, "add(f): reduce f as $x (null; . + $x);"),
    ("range", 1, "range($n): range(0; $n; 1);"),
    ("range", 2, "range($from; $to): range($from; $to; 1);"),
    ("in", 1, "in(f): . as $x | f | has($x);"),
    ("inside", 1, "inside(f): . as $x | f | contains($x);"),
    (
        "join",
        1,
        "join($s): reduce .[] as $x (null; (if . == null then \"\" else . + $s end) + ($x | if type == \"string\" \
                then . elif . == null then \"\" else tojson end)) // \"\";",
    ),
    ("flatten", 0, "flatten: flatten(100);"),
    ("transpose", 0, "transpose: [range(0; (map(length) | max // 0)) as $i | [.[] | .[$i]]];"),
    ("IN", 1, "IN(s): any(s == .; .);"),
    ("IN", 2, "IN(src; s): any(src == s; .);"),
    ("INDEX", 1, "INDEX(f): INDEX(.[]; f);"),
    ("INDEX", 2, "INDEX(s; f): reduce s as $row ({}; .[$row | f | tostring] |= $row);"),
    (
        "combinations",
        0,
        "combinations: if length == 0 then [] else .[0][] as $x | (.[1:] | combinations) as $w | [$x] + $w end;",
    ),
    ("toarray", 0, "toarray: if type == \"array\" then . else [.] end;"),
    ("abs", 0, "abs: if type == \"number\" and . < 0 then -. else . end;"),
    ("tojson", 0, "tojson: @json;"),
    ("index", 1, "index($i): indices($i) | .[0];"),
    ("rindex", 1, "rindex($i): indices($i) | .[-1:][0];"),
    ("recurse", 0, "recurse: recurse(.[]?);"),
    ("recurse", 2, "recurse(f; cond): recurse(f | select(cond));"),
    ("min_by", 1, "min_by(f): (group_by(f) | .[0]) // [] | .[0];"),
    ("max_by", 1, "max_by(f): (group_by(f) | .[-1:][0]) // [] | .[-1:][0];"),
    ("unique_by", 1, "unique_by(f): [group_by(f)[] | .[0]];"),
    ("min", 0, "min: sort | .[0];"),
    ("max", 0, "max: sort | .[-1:][0];"),
    ("sort", 0, "sort: sort_by(.);"),
    ("unique", 0, "unique: unique_by(.);"),
    ("error", 1, "error($m): $m | error;"),
];

/// All functions of the library, with their numbers of parameters.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = (&'static str, usize)> {
    LIBRARY.iter().map(|(name, arity, _)| (*name, *arity))
}
