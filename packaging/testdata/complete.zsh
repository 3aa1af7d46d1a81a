# complete.zsh SHELL PREFIX: types at an interactive bash or zsh that has Vix's
# completions from PREFIX/share, presses Tab, and prints what the shell shows.
# A line of standard input is what is typed, and the words that are waited for, with
# tabs between.
zmodload zsh/zpty
case $1 in
bash)
	keys=$'\t\t'
	zpty -b shell bash --norc --noprofile -i
	setup="PS1=; bind 'set enable-bracketed-paste off' 'set completion-query-items 0' 'set page-completions off'
XDG_DATA_DIRS=$2/share; . /usr/share/bash-completion/bash_completion"
	;;
zsh)
	keys=$'\t'
	zpty -b shell zsh -f -i
	setup="PS1=; unset zle_bracketed_paste; fpath=($2/share/zsh/*(N) \$fpath); autoload -Uz compinit; compinit -u -D; LISTMAX=0
bindkey '^I' list-choices"
	;;
esac
zpty -w shell "stty columns 160 rows 60; $setup
echo rea''dy"
zpty -r -m shell seen '*ready*' || exit 1
while IFS=$'\t' read -rA words; do
	line=$words[1] seen=
	zpty -w -n shell "$line$keys"
	for word in $words[2,-1]; do
		while [[ $seen != *"$word"* ]]; do
			zpty -r -m shell more "*${(b)word}*" || exit 1
			seen+=$more
		done
	done
	print -r -- "$line => ${seen//[^[:print:][:space:]]/}"
	zpty -w -n shell $'\C-u'
done
zpty -d shell
