package termsafe

// Nothing holds strings of which nothing passes.
var Nothing = nothing

// State is a filter's knowledge of the terminal, for comparison.
func (f *Filter) State() any { return [2]any{f.cursor, f.modes} }
