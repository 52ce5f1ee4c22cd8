//! Ratios of Portico's figures to those of peers, within each round.

use super::Spread;
use super::cases::{Peers, Target};
use super::figures::Figures;
use super::rounds::Round;

pub(crate) const PORTICO: &str = "portico";

/// Whether the server is Portico, including those that a case has as a reference.
pub(crate) fn is_portico(name: &str) -> bool {
    name.strip_prefix(PORTICO).is_some_and(|rest| rest.is_empty() || rest.starts_with(", "))
}

/// The ratio of CPU time at the fixed rate and at full speed, whichever is worse. None if no such peer was measured.
pub(crate) fn worse_cpu_ratio(rounds: &[Round], peers: Peers<'_>) -> Option<Spread> {
    let paced = ratio(rounds, peers, |figures| figures.cpu_paced)?;
    let full = ratio(rounds, peers, |figures| figures.cpu_full)?;
    Some(if paced.median > full.median { paced } else { full })
}

/// Portico's figure divided by that of a peer, or by the lowest of all peers, within each round.
pub(crate) fn ratio(rounds: &[Round], peers: Peers<'_>, figure: fn(&Figures) -> f64) -> Option<Spread> {
    let of_round = |round: &Round| {
        let is_meant = |name: &str| match peers {
            Peers::Named(peer) => name == peer,
            Peers::Best => !is_portico(name),
        };
        let peers = round.iter().filter(|(name, _)| is_meant(name)).map(|(_, figures)| figure(figures));
        Some(figure(round.get(PORTICO)?) / peers.min_by(f64::total_cmp)?)
    };
    let ratios: Vec<f64> = rounds.iter().filter_map(of_round).collect();
    (!ratios.is_empty()).then(|| Spread::from_values(ratios.into_iter()))
}

impl Target {
    /// Whether the median reaches the target. None if it was not measured.
    pub(crate) fn is_met(&self, rounds: &[Round]) -> Option<bool> {
        Some(worse_cpu_ratio(rounds, self.peers)?.median <= self.ratio)
    }

    pub(crate) fn name(&self) -> String {
        match self.peers {
            Peers::Named(peer) => format!("≤ {:.2} × {peer}", self.ratio),
            Peers::Best => format!("≤ {:.2} × the best", self.ratio),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(cpu_paced: f64, cpu_full: f64) -> Figures {
        Figures {
            cpu_paced,
            cpu_full,
            per_second: 0.0,
            busy: 0.0,
            load_busy: 0.0,
            latency: None,
            resident: 0.0,
            bad: 0,
        }
    }

    #[test]
    fn a_reference_is_not_the_best_peer() {
        let round: Round = [(PORTICO, 11.0), ("portico, 1 route", 10.0), ("a", 22.0), ("b", 33.0)]
            .map(|(name, cpu)| (name.to_owned(), figures(cpu, cpu)))
            .into();
        let median = |peers| worse_cpu_ratio(std::slice::from_ref(&round), peers).unwrap().median;
        assert_eq!((median(Peers::Named("portico, 1 route")), median(Peers::Best)), (1.1, 0.5));
    }

    #[test]
    fn worse_ratio_counts_and_the_best_peer_is_chosen_in_each_round() {
        let round = |portico: (f64, f64), first: (f64, f64), second: (f64, f64)| {
            [("portico", portico), ("a", first), ("b", second)]
                .map(|(name, (paced, full))| (name.to_owned(), figures(paced, full)))
                .into()
        };
        let rounds = [
            round((10.0, 8.0), (10.0, 16.0), (20.0, 10.0)),
            round((10.0, 8.0), (20.0, 16.0), (8.0, 10.0)),
            round((10.0, 8.0), (10.0, 16.0), (20.0, 10.0)),
        ];
        let median = |peers| worse_cpu_ratio(&rounds, peers).unwrap().median;
        assert_eq!((median(Peers::Named("a")), median(Peers::Named("b"))), (1.0, 0.8));
        assert_eq!(median(Peers::Best), 1.0);
        assert_eq!(ratio(&rounds, Peers::Best, |figures| figures.cpu_paced).unwrap().maximum, 1.25);
        assert!(worse_cpu_ratio(&rounds, Peers::Named("c")).is_none());
        let target = |ratio| Target { peers: Peers::Best, ratio }.is_met(&rounds);
        assert_eq!((target(1.0), target(0.99)), (Some(true), Some(false)));
        assert_eq!(Target { peers: Peers::Named("c"), ratio: 9.0 }.is_met(&rounds), None);
    }
}
