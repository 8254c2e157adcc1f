//! The bodies of a load: made-up clicks as Opptima documents them, or bodies that are given.
//!
//! A few campaigns have most of the clicks: the second has half as many as the first, the third a third
//! (Zipf's law). Each click has a `destination` of its own.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::Offset;

/// Opptima's times are Colombian.
const OFFSET: Offset = Offset::constant(-5);

/// City, region, country, latitude, longitude, and the share of the clicks that come from there.
const CITIES: [(&str, &str, &str, f64, f64, u32); 12] = [
    ("Bogota", "Distrito Capital de Bogota", "Colombia", 4.60971, -74.081749, 34),
    ("Medellin", "Antioquia", "Colombia", 6.25184, -75.563591, 17),
    ("Cali", "Valle del Cauca", "Colombia", 3.43722, -76.522499, 12),
    ("Barranquilla", "Atlantico", "Colombia", 10.96854, -74.781319, 8),
    ("Cartagena", "Bolivar", "Colombia", 10.39972, -75.514442, 6),
    ("Bucaramanga", "Santander", "Colombia", 7.12539, -73.119804, 4),
    ("Pereira", "Risaralda", "Colombia", 4.81333, -75.696111, 3),
    ("Cúcuta", "Norte de Santander", "Colombia", 7.89391, -72.507819, 3),
    ("Quito", "Pichincha", "Ecuador", -0.22985, -78.524948, 3),
    ("Lima", "Lima", "Peru", -12.04318, -77.028236, 3),
    ("Miami", "Florida", "United States", 25.77427, -80.193657, 4),
    ("Madrid", "Madrid", "Spain", 40.4165, -3.70256, 3),
];

/// Device, browser, and the share of the clicks that come from there.
const DEVICES: [(&str, &str, u32); 6] = [
    ("mobile", "Chrome", 46),
    ("mobile", "Safari", 19),
    ("desktop", "Chrome", 20),
    ("desktop", "Edge", 6),
    ("desktop", "Firefox", 4),
    ("tablet", "Safari", 5),
];

/// Contacts of an account.
const CONTACTS: u32 = 1_000_000;

/// The bodies of one connection.
#[derive(Clone)]
pub enum Bodies {
    /// Made up.
    Made(Clicks),
    /// One or more that are given, taken in turn.
    Given(Arc<[Bytes]>),
}

impl Bodies {
    /// Bodies for one connection more. Made-up clicks have a sequence of their own: with the same one, all
    /// connections would send the same campaign and contact at the same time.
    pub fn fork(&mut self) -> Bodies {
        let mut fork = self.clone();
        if let (Bodies::Made(of_all), Bodies::Made(of_one)) = (self, &mut fork) {
            of_one.random = of_all.random.fork();
        }
        fork
    }

    /// The body of the click with this number.
    pub fn get(&mut self, number: u64) -> Bytes {
        match self {
            Bodies::Made(clicks) => clicks.make(number).into(),
            Bodies::Given(bodies) => bodies[number as usize % bodies.len()].clone(),
        }
    }
}

/// Makes clicks up.
#[derive(Clone)]
pub struct Clicks {
    run: Arc<str>,
    campaigns: Arc<Choice<u32>>,
    cities: Arc<Choice<String>>,
    devices: Arc<Choice<String>>,
    random: fastrand::Rng,
    /// A second, and its text.
    time: (i64, String),
}

/// Items, each with the sum of the weights up to its own.
struct Choice<T>(Vec<(f64, T)>);

impl<T> Choice<T> {
    fn new(items: impl Iterator<Item = (f64, T)>) -> Arc<Choice<T>> {
        let mut sum = 0.0;
        let add = |(weight, item)| {
            sum += weight;
            (sum, item)
        };
        Arc::new(Choice(items.map(add).collect()))
    }

    fn choose(&self, random: &mut fastrand::Rng) -> &T {
        let last = self.0.len() - 1;
        let point = random.f64() * self.0[last].0;
        &self.0[self.0.partition_point(|(sum, _)| *sum <= point).min(last)].1
    }
}

impl Clicks {
    /// Clicks of so many campaigns, marked with the name of this run.
    pub fn new(run: &str, campaigns: u32) -> Clicks {
        let city = |(city, region, country, latitude, longitude, weight)| {
            let json = format!(
                r#""cityName":"{city}","regionName":"{region}","countryName":"{country}","latitude":{latitude},"longitude":{longitude}"#
            );
            (f64::from(weight), json)
        };
        let device = |(device, browser, weight)| {
            (f64::from(weight), format!(r#""device_type":"{device}","browser":"{browser}""#))
        };
        let campaign = |rank| (1.0 / f64::from(rank), rank - 1);
        Clicks {
            run: run.into(),
            campaigns: Choice::new((1..=campaigns.max(1)).map(campaign)),
            cities: Choice::new(CITIES.into_iter().map(city)),
            devices: Choice::new(DEVICES.into_iter().map(device)),
            random: fastrand::Rng::new(),
            time: (i64::MIN, String::new()),
        }
    }

    fn make(&mut self, number: u64) -> String {
        let now = Timestamp::now();
        if self.time.0 != now.as_second() {
            let text = OFFSET.to_datetime(now).strftime("%Y-%m-%d %H:%M:%S").to_string();
            self.time = (now.as_second(), text);
        }
        let campaign = self.campaigns.choose(&mut self.random);
        let city = self.cities.choose(&mut self.random);
        let device = self.devices.choose(&mut self.random);
        let contact = self.random.u32(..CONTACTS);
        format!(
            r#"{{"type":"Email marketing","event":"click","campid":"{}","relid":"123",{city},{device},"timestamp":"{}","email":"contact{contact}@example.com","campaignName":"Campaign {campaign}","subject":"News of campaign {campaign}","contactId":"{}","destination":"https://www.example.com/offers/{}?click={}-{number}"}}"#,
            10_000 + campaign,
            self.time.1,
            112_000_000 + contact,
            contact % 7,
            self.run,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// The names and types of a JSON object's members.
    fn shape(body: &[u8]) -> BTreeMap<String, std::mem::Discriminant<serde_json::Value>> {
        let body: serde_json::Map<_, _> = serde_json::from_slice(body).expect("JSON");
        body.into_iter().map(|(name, value)| (name, std::mem::discriminant(&value))).collect()
    }

    #[test]
    fn clicks_look_as_documented() {
        let documented = include_bytes!("../../tests/fixtures/email-marketing-click.json");
        let mut clicks = Clicks::new("test", 10);
        for number in 0..100 {
            assert_eq!(shape(clicks.make(number).as_bytes()), shape(documented));
        }
    }

    #[test]
    fn campaigns_are_skewed_and_every_click_is_one_of_a_kind() {
        let mut clicks = Clicks::new("test", 100);
        let (mut campaigns, mut bodies) = (BTreeMap::<String, u32>::new(), BTreeSet::new());
        for number in 0..10_000 {
            let body = clicks.make(number);
            let click: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            *campaigns.entry(click["campid"].to_string()).or_default() += 1;
            assert!(bodies.insert(click["destination"].to_string()));
        }
        // A fifth of all, by Zipf's law, and half of that.
        let (first, second) = (campaigns["\"10000\""], campaigns["\"10001\""]);
        assert!((1_700..2_200).contains(&first) && (750..1_200).contains(&second), "{campaigns:?}");
        assert!(campaigns.len() > 80, "{}", campaigns.len());
    }

    #[test]
    fn connections_have_clicks_of_their_own() {
        let mut bodies = Bodies::Made(Clicks::new("test", 1_000));
        let mut two = [bodies.fork(), bodies.fork()];
        let contacts = |bodies: &mut Bodies| -> Vec<String> {
            let bodies = (0..10).map(|number| bodies.get(number));
            let clicks = bodies.map(|body| serde_json::from_slice(&body).expect("JSON"));
            clicks.map(|click: serde_json::Value| click["contactId"].to_string()).collect()
        };
        assert_ne!(contacts(&mut two[0]), contacts(&mut two[1]));
    }

    #[test]
    fn given_bodies_are_taken_in_turn() {
        let mut bodies = Bodies::Given([Bytes::from("a"), Bytes::from("b")].into());
        let taken: Vec<_> = (0..3).map(|number| bodies.get(number)).collect();
        assert_eq!(taken, ["a", "b", "a"]);
    }
}
