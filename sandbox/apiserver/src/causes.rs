//! What is wrong with an object, field by field, as Kubernetes words it.

use serde_json::Value;

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) field: String,
}

/// What is wrong with an object: not all of it where that is more than anybody reads, and far more than was sent.
#[derive(Debug, Default)]
pub(crate) struct Causes {
    named: Vec<Cause>,
    more: usize,
}

impl Causes {
    const MOST: usize = 100;

    pub(crate) fn push(&mut self, cause: Cause) {
        if self.named.len() < Causes::MOST {
            self.named.push(cause);
        } else {
            self.more += 1;
        }
    }

    /// How many there are, named or not.
    pub(crate) fn count(&self) -> usize {
        self.named.len() + self.more
    }

    pub(crate) fn extend(&mut self, causes: impl IntoIterator<Item = Cause>) {
        causes.into_iter().for_each(|cause| self.push(cause));
    }

    /// Those that are named; the last of them says how many more there are.
    pub(crate) fn into_list(mut self) -> Vec<Cause> {
        if self.more > 0 {
            self.named.push(Cause {
                reason: "FieldValueTooMany",
                message: format!("Too many: {} more are left out", self.more),
                field: Cause::WHOLE.to_owned(),
            });
        }
        self.named
    }
}

impl Cause {
    /// Names the whole object where a field is named otherwise, as Go prints an empty path.
    pub(crate) const WHOLE: &str = "[]";

    pub(crate) fn too_long(field: impl Into<String>, most_bytes: usize) -> Cause {
        let message = format!("Too long: may not be more than {most_bytes} bytes");
        Cause { reason: "FieldValueTooLong", message, field: field.into() }
    }

    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Cause {
        let message =
            if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Cause { reason: "FieldValueRequired", message, field: field.into() }
    }

    /// `value` is shown as Kubernetes does: strings quoted, others as JSON.
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Cause {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {detail}"),
            field: field.into(),
        }
    }

    pub(crate) fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Cause {
        let list = supported.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ");
        Cause {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {value}: supported values: {list}"),
            field: field.into(),
        }
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        Cause {
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {value}"),
            field: field.into(),
        }
    }

    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
        Cause { reason: "FieldValueForbidden", message: format!("Forbidden: {detail}"), field: field.into() }
    }
}
