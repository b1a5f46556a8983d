use minijinja::Value;
use minijinja::value::ValueKind;

/// A JSON value as templates see it; objects keep the order of their keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Json(pub(super) Value);

/// Why a text is not JSON, with line and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl Json {
    /// Reads a JSON document.
    /// # Errors
    /// [`JsonError`] if it is not one, or is nested more than 128 deep.
    pub fn parse(text: &str) -> Result<Json, JsonError> {
        serde_json::from_str(text)
            .map(Json)
            .map_err(|error| JsonError(error.to_string()))
    }

    /// An object.
    pub fn object(entries: impl IntoIterator<Item = (&'static str, Json)>) -> Json {
        Json(Value::from_pairs(
            entries.into_iter().map(|(key, Json(value))| (key, value)),
        ))
    }

    /// The items, if it is an array.
    pub fn into_items(self) -> Option<Vec<Json>> {
        let items = (self.0.kind() == ValueKind::Seq)
            .then(|| self.0.try_iter().ok())
            .flatten()?;
        Some(items.map(Json).collect())
    }

    /// Keys and values, if it is an object.
    pub fn into_entries(self) -> Option<Vec<(String, Json)>> {
        let keys = (self.0.kind() == ValueKind::Map)
            .then(|| self.0.try_iter().ok())
            .flatten()?;
        let entry = |key: Value| {
            let value = self.0.get_item(&key).ok()?;
            Some((key.as_str()?.to_owned(), Json(value)))
        };
        keys.map(entry).collect()
    }

    /// Whether it is an array.
    pub fn is_array(&self) -> bool {
        self.0.kind() == ValueKind::Seq
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.kind() == ValueKind::Map
    }

    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_str()
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json(Value::from(text))
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json(Value::from(text))
    }
}

impl From<Vec<Json>> for Json {
    fn from(items: Vec<Json>) -> Json {
        Json(items.into_iter().map(|Json(value)| value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_the_order_of_their_keys() {
        let json = Json::parse(r#"{"z": 1, "a": [true, null], "m": "x"}"#).unwrap();
        let entries = json.into_entries().unwrap();
        let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["z", "a", "m"]);
        assert_eq!(entries[2].1.as_str(), Some("x"));
        assert_eq!(entries[1].1.clone().into_items().unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        let error = Json::parse("{\"a\": 1,\n oops}").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        let deep = "[".repeat(100_000);
        assert!(Json::parse(&deep).is_err());
    }

    #[test]
    fn kinds_are_told_apart() {
        assert!(Json::from("x").into_items().is_none());
        assert!(Json::from("x").into_entries().is_none());
        assert!(Json::from(vec![Json::from("x")]).into_entries().is_none());
        assert!(Json::object([]).is_object());
    }
}
