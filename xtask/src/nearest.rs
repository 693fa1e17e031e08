//! The name that a misspelt one was meant to be.

/// More letters that are wrong are another name.
const MOST_WRONG: usize = 2;

/// The name nearest to `name`, where there is one that near.
pub fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let distances = names.into_iter().map(|other| (strsim::damerau_levenshtein(other, name), other));
    distances.min().filter(|(distance, _)| *distance <= MOST_WRONG).map(|(_, near)| near)
}
