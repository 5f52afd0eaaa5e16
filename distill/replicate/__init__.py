"""`fourstep distill replicate`: the paper's comparison in small, with exact oracles where there are any."""
