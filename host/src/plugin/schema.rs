//! A profile's `plugin.config`, held to the schema that its plugin gives for it.

use serde_json::Value;

/// Checks a profile's `plugin.config` against the schema of its plugin.
pub(crate) fn check_schema(schema: &Value, config: &Value) -> Result<(), String> {
    let validator = jsonschema::draft202012::new(schema).map_err(|e| {
        format!("the plugin's configuration schema is not a valid JSON Schema: {e}")
    })?;
    match validator.iter_errors(config).next() {
        None => Ok(()),
        Some(error) => Err(format!(
            "`plugin.config{}` of profile.yml: {}",
            error.instance_path(),
            misfit(&error)
        )),
    }
}

/// What is wrong with a value. The library's own sentence names two of the values that are right, this one all of them.
fn misfit(error: &jsonschema::ValidationError<'_>) -> String {
    let options = match error.kind() {
        jsonschema::error::ValidationErrorKind::Enum { options } => options.as_array(),
        _ => None,
    };
    let Some(options) = options else {
        return error.to_string();
    };
    let options: Vec<String> = options.iter().map(Value::to_string).collect();
    format!("{} is not one of {}", error.instance(), options.join(", "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::check_schema;

    #[test]
    fn a_value_that_is_none_of_those_allowed_comes_with_all_of_them() {
        let modes = ["read-only", "workspace-write", "danger", "none"];
        let schema = json!({"properties": {"sandbox": {"enum": modes}}});
        check_schema(&schema, &json!({"sandbox": "none"})).unwrap();
        let error = check_schema(&schema, &json!({"sandbox": "off"})).unwrap_err();
        assert!(error.contains("`plugin.config/sandbox`"), "{error}");
        assert!(modes.iter().all(|mode| error.contains(mode)), "{error}");
    }
}
