"""Texts that tokenizers go wrong on, by name: for tests and benchmarks."""

HARD_TEXTS = {
    "nothing": "",
    "one byte": "a",
    "one space": " ",
    "spaces": " " * 37,
    "spaces before a word": "    return    x",
    "spaces at the end": "the end    ",
    "tabs and line ends": "a\tb\n\n\n  c\r\n\r\n\td \n e",
    "line ends after signs": "x = {\n\n};\r\n\n!!\n",
    "other spaces": "a\u00a0b\u2003c\u3000d\u2028e\u0085f",
    "separators that are no space": "a\x1cb \x1dc\x1e\x1fd\u200be\ufefff",
    "NUL": "a\0b\0\0 \0c",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "contractions": "it's I'd we'll they've you're I'm don't O'Neill 'tis 'S'T'RE'VE'M'LL'D",
    "curly quotes": "it’s “quoted” ‘twice’—and…",
    "long s and Kelvin": "it'\u017f 'K \u212a'\u017f l\u017f",
    "digits": "1 12 123 1234 1234567890 3.14159 1,000,000 0x1F",
    "other digits": "٣٤٥ ४५६ ½ ² Ⅷ ① 一二三",
    "accents": "naïve café Łódź Ångström ñandú",
    "combining marks": "e\u0301 a\u0308\u0323 z\u0334\u0335\u0336\u0337 क्षि नमस्ते",
    "right to left": "שלום עולם, مرحبا بالعالم! \u202eabc\u202c",
    "Cyrillic and Greek": "Привет, мир. Καλημέρα κόσμε;",
    "Chinese, Japanese, Korean": "你好，世界。こんにちは世界！ カタカナ 안녕하세요 세계",
    "emoji": "😀😃 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 1️⃣",
    "outside of the plane": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 \U0010ffff \ue000 \ufffe\uffff \ufffd",
    "no cased letters": "ǅ ʰ ª º ﬁ ß ẞ İ ı",
    "a long word": "a" * 3000 + "ab" * 700 + "xyz" * 300,
    "signs": "!@#$%^&*()_+-=[]{}|;:'\",.<>/?`~ -->>==!!??__init__",
    "a special token": "before<|endoftext|>after <|endoftext|><|endof text|>",
}

__all__ = ["HARD_TEXTS"]
