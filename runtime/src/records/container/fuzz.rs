//! Properties of what reads records; see [`crate::fuzz`].

#![expect(clippy::unwrap_used, reason = "a panic is how a property fails")]

use super::record::{Ended, Running, parse};
use crate::spec::RunSpec;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Every kind of record from the same bytes.
pub(crate) fn record(bytes: &[u8]) -> bool {
    [read::<RunSpec>(bytes), read::<Running>(bytes), read::<Ended>(bytes)].contains(&true)
}

fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let record: T = match parse(bytes) {
        Ok(record) => record,
        Err(error) => {
            let text = format!("{error:#}");
            assert!(text.contains("damaged") || text.contains("newer version"), "{text}");
            assert!(!text.contains('\n'), "{text:?}");
            return false;
        }
    };
    let mut written = serde_json::to_value(&record).unwrap();
    let again = |value: &Value| parse::<T>(value.to_string().as_bytes()).map(|it| serde_json::to_value(it).unwrap());
    assert_eq!(again(&written).unwrap(), written);
    // What a newer version writes besides is passed over.
    let fields = written.as_object_mut().unwrap();
    fields.insert("field-of-the-future".to_owned(), serde_json::json!({"a": [1]}));
    let passed_over = again(&written).unwrap();
    written.as_object_mut().unwrap().remove("field-of-the-future");
    assert_eq!(passed_over, written);
    true
}
