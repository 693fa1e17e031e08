//! The grammar of label selectors: `app=web,tier in (a,b),!old`. Errors are worded as Kubernetes' own parser does;
//! source: `apimachinery/pkg/labels/selector.go`.

use super::LabelTerm;
use crate::names::key_problems;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    End,
    Word(String),
    Symbol(&'static str),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::End => "",
            Token::Word(word) => word,
            Token::Symbol(symbol) => symbol,
        }
    }
}

/// The longest first, so that `==` isn't two of `=`.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(mut text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            return tokens;
        }
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| text.starts_with(symbol)) {
            tokens.push(Token::Symbol(symbol));
            text = &text[symbol.len()..];
        } else {
            let end = text.find(|c| "=!(),>< \t\r\n".contains(c)).unwrap_or(text.len());
            tokens.push(Token::Word(text[..end].to_owned()));
            text = &text[end..];
        }
    }
}

struct Parser {
    tokens: std::vec::IntoIter<Token>,
}

/// The terms of a selector, or what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<LabelTerm>, String> {
    let mut parser = Parser { tokens: tokens(text).into_iter() };
    let mut terms = Vec::new();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Symbol("!") => {
                terms.push(parser.term().map_err(|why| format!("unable to parse requirement: {why}"))?);
                match parser.next() {
                    Token::End => return Ok(terms),
                    Token::Symbol(",") => match parser.peek() {
                        Token::Word(_) | Token::Symbol("!") => {}
                        other => {
                            return Err(format!("found '{}', expected: identifier after ','", other.text()));
                        }
                    },
                    other => {
                        return Err(format!("found '{}', expected: ',' or 'end of string'", other.text()));
                    }
                }
            }
            Token::End => return Ok(terms),
            other => {
                return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text()));
            }
        }
    }
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.as_slice().first().cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn term(&mut self) -> Result<LabelTerm, String> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        if let Some(why) = key_problems(&key).first() {
            return Err(format!("<nil>: Invalid value: \"{key}\": {why}"));
        }
        if negated {
            return Ok(LabelTerm::Missing(key));
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(LabelTerm::Exists(key));
        }
        let operator = self.next();
        match operator.text() {
            "in" => Ok(LabelTerm::In(key, self.values()?)),
            "notin" => Ok(LabelTerm::NotIn(key, self.values()?)),
            "=" | "==" => Ok(LabelTerm::In(key, vec![self.value()?])),
            "!=" => Ok(LabelTerm::NotIn(key, vec![self.value()?])),
            sign @ (">" | "<") => {
                let value = self.value()?;
                let bound = value.parse().map_err(|_| {
                    format!(
                        "<nil>: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be \
                             an integer"
                    )
                })?;
                Ok(if sign == ">" { LabelTerm::Above(key, bound) } else { LabelTerm::Below(key, bound) })
            }
            other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    /// One value; nothing where the selector goes on or ends.
    fn value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => Ok(value),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// `(a,b)`.
    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let mut values = vec![String::new()];
        loop {
            let token = self.next();
            match (&token, values.last_mut()) {
                (Token::Word(word), Some(last)) if last.is_empty() => word.clone_into(last),
                (Token::Symbol(","), _) => values.push(String::new()),
                (Token::Symbol(")"), _) => return Ok(values),
                _ => return Err(format!("found '{}', expected: ',' or ')'", token.text())),
            }
        }
    }
}
