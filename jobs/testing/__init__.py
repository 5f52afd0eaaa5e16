"""Real Redis servers, samples of jobs and waiting, for tests, benchmarks and docs."""
