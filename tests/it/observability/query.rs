//! The metrics, labels and values that a query of the dashboard or an alert names.
//!
//! This only finds names; Prometheus itself checks the syntax.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// The names in a query.
#[derive(Debug, Default, PartialEq)]
pub struct Names {
    pub selectors: Vec<Selector>,
    /// Labels by which a result is grouped or two sides are matched.
    pub groups: BTreeSet<String>,
}

#[derive(Debug, PartialEq)]
pub struct Selector {
    pub metric: String,
    /// Labels, each with the value to match or to exclude.
    pub matchers: Vec<(String, String)>,
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

pub fn names(query: &str) -> Names {
    let mut tokens = tokens(query).into_iter().peekable();
    let mut names = Names::default();
    while let Some(token) = tokens.next() {
        let Token::Word(word) = token else { continue };
        match word.as_str() {
            "and" | "or" | "unless" | "bool" | "offset" => {}
            // Excluded labels need not exist.
            "without" | "ignoring" => drop(until(')', &mut tokens)),
            "by" | "on" | "group_left" | "group_right" => {
                names.groups.extend(until(')', &mut tokens).into_iter().filter_map(|token| {
                    let Token::Word(label) = token else { return None };
                    Some(label)
                }));
            }
            _ if tokens.peek().is_some_and(follows_function) => {}
            _ => {
                let has_matchers = tokens.peek() == Some(&Token::Sign('{'));
                let inside = if has_matchers { until('}', &mut tokens) } else { Vec::new() };
                names.selectors.push(Selector { metric: word, matchers: matchers(inside) });
            }
        }
    }
    names
}

/// An argument follows a function; a grouping may follow an aggregation.
fn follows_function(token: &Token) -> bool {
    match token {
        Token::Sign(sign) => *sign == '(',
        Token::Word(word) => ["by", "without"].contains(&word.as_str()),
        Token::Text(_) => false,
    }
}

fn until(end: char, tokens: &mut impl Iterator<Item = Token>) -> Vec<Token> {
    tokens.take_while(|token| *token != Token::Sign(end)).collect()
}

fn matchers(tokens: Vec<Token>) -> Vec<(String, String)> {
    let mut matchers = Vec::new();
    let mut label = String::new();
    for token in tokens {
        match token {
            Token::Word(word) => label = word,
            Token::Text(value) => matchers.push((std::mem::take(&mut label), value)),
            Token::Sign(_) => {}
        }
    }
    matchers
}

fn tokens(query: &str) -> Vec<Token> {
    let mut rest = query.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(&next) = rest.peek() {
        if next.is_ascii_digit() {
            // A number or a duration.
            word(&mut rest, |c| c.is_ascii_alphanumeric() || c == '.');
        } else if next.is_ascii_alphabetic() || next == '_' {
            tokens.push(Token::Word(word(&mut rest, |c| c.is_ascii_alphanumeric() || c == '_')));
        } else if next == '"' {
            rest.next();
            tokens.push(Token::Text(word(&mut rest, |c| c != '"')));
            assert_eq!(rest.next(), Some('"'), "a text without an end: {query}");
        } else {
            rest.next();
            tokens.extend((!next.is_whitespace()).then_some(Token::Sign(next)));
        }
    }
    tokens
}

fn word(rest: &mut Peekable<Chars>, belongs: impl Fn(char) -> bool) -> String {
    std::iter::from_fn(|| rest.next_if(|&next| belongs(next))).collect()
}

#[test]
fn finds_every_name() {
    let found = names(
        "sum by (a, b) (rate(one_total{c=\"d\",e!~\"f|g)\"}[5m])) > 0.5 * sum without (h) (two) \
         and on (i) last_over_time(three{}[1h]) == 1",
    );
    let selector = |metric: &str, matchers: &[(&str, &str)]| Selector {
        metric: metric.into(),
        matchers: matchers.iter().map(|(l, v)| ((*l).into(), (*v).into())).collect(),
    };
    let one = selector("one_total", &[("c", "d"), ("e", "f|g)")]);
    assert_eq!(found.selectors, [one, selector("two", &[]), selector("three", &[])]);
    assert_eq!(found.groups, ["a", "b", "i"].map(String::from).into());
}
