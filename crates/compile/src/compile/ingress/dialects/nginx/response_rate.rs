//! The rate at which each response is sent: `limit-rate` and `limit-rate-after`.

use std::num::NonZeroU64;

use super::config_map::NginxConfig;
use super::value_reader::ValueReader;
use crate::snapshot::response_rate::ResponseRate;

/// The rate of an Ingress, or else that of the ConfigMap; `None` without a limit.
pub(super) fn read(reader: &mut ValueReader<'_>, config: &NginxConfig) -> Option<ResponseRate> {
    let kilobytes = |reader: &mut ValueReader<'_>, name, default: u64| {
        let number = reader.number(name).and_then(|number| u64::try_from(number).ok());
        number.unwrap_or(default).saturating_mul(KILOBYTE)
    };
    let rate = NonZeroU64::new(kilobytes(reader, "limit-rate", config.rate_kilobytes));
    let unlimited_bytes = kilobytes(reader, "limit-rate-after", config.rate_after_kilobytes);
    if rate.is_none() {
        reader.note_without(&["limit-rate-after"], "limit-rate");
    }
    Some(ResponseRate { bytes_per_second: rate?, unlimited_bytes })
}

const KILOBYTE: u64 = 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ingress_nginx::PREFIX;

    #[test]
    fn annotations_precede_the_config_map() {
        let rate = |bytes_per_second, unlimited_bytes| {
            Some(ResponseRate { bytes_per_second: NonZeroU64::new(bytes_per_second).unwrap(), unlimited_bytes })
        };
        for (annotations, keys, expected, notes) in [
            (&[][..], (0, 0), None, 0),
            (&[("limit-rate", "5")], (0, 0), rate(5 << 10, 0), 0),
            (&[("limit-rate", "5"), ("limit-rate-after", "2")], (7, 9), rate(5 << 10, 2 << 10), 0),
            (&[("limit-rate-after", "2")], (7, 9), rate(7 << 10, 2 << 10), 0),
            (&[], (7, 9), rate(7 << 10, 9 << 10), 0),
            (&[("limit-rate", "0")], (7, 9), None, 0),
            (&[("limit-rate-after", "2")], (0, 0), None, 1),
            (&[("limit-rate", "5k")], (0, 0), None, 1),
        ] {
            let annotations: serde_json::Map<_, _> =
                annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).into())).collect();
            let meta =
                serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap();
            let mut reader = ValueReader::new(&meta);
            let (rate_kilobytes, rate_after_kilobytes) = keys;
            let config = NginxConfig { rate_kilobytes, rate_after_kilobytes, ..NginxConfig::default() };
            assert_eq!(read(&mut reader, &config), expected, "{annotations:?}");
            assert_eq!((reader.notes.len(), reader.errors.len()), (notes, 0), "{annotations:?}");
        }
    }
}
