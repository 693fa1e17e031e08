//! The names of ImageNet-1k's classes, one a line in the order of the model's logits.

use std::sync::LazyLock;

/// Classes of the model.
pub(crate) const COUNT: usize = 1000;

static NAMES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("../assets/imagenet1k.txt").lines().collect());

/// The name of class `index`.
pub(crate) fn name(index: usize) -> &'static str {
    NAMES.get(index).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_classes_have_a_name() {
        assert_eq!(NAMES.len(), COUNT);
        assert!(NAMES.iter().all(|name| !name.is_empty() && name.trim() == *name));
        assert_eq!((name(0), name(950), name(999)), ("tench", "orange", "toilet tissue"));
    }
}
