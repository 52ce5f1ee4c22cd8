//! Whether a client has reduced the size of the table with which header blocks to it are compressed.

/// Whether a SETTINGS frame sets the size of the dynamic table below its default (RFC 9113, section 6.5.2). The next
/// header block must then begin with an update of the size (RFC 7541, section 4.2).
pub fn reduces_table(settings: &[u8]) -> bool {
    let (settings, _) = settings.as_chunks::<6>();
    settings.iter().any(|[id_0, id_1, value @ ..]| {
        [*id_0, *id_1] == HEADER_TABLE_SIZE && u32::from_be_bytes(*value) < DEFAULT_TABLE_SIZE
    })
}

const HEADER_TABLE_SIZE: [u8; 2] = [0, 1];
const DEFAULT_TABLE_SIZE: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduced_tables_are_noticed() {
        let window = [0, 4, 0, 0, 0, 0];
        let table = |size: u32| [&HEADER_TABLE_SIZE[..], &size.to_be_bytes()].concat();
        for (settings, expected) in [
            (vec![], false),
            (window.to_vec(), false),
            (table(0), true),
            (table(4095), true),
            (table(4096), false),
            (table(65_536), false),
            ([&window[..], &table(100), &table(4096)].concat(), true),
            // Not a whole setting.
            (table(0)[..5].to_vec(), false),
        ] {
            assert_eq!(reduces_table(&settings), expected, "{settings:?}");
        }
    }
}
