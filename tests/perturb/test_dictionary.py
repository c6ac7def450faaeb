"""The bilingual table: one word for one."""

from perimetry.perturb.dictionary import LANGUAGES, TRANSLATIONS


def test_every_language_has_the_common_words_one_for_one() -> None:
    assert sorted(TRANSLATIONS) == list(LANGUAGES)
    for table in TRANSLATIONS.values():
        assert len(table) > 280
        for english, word in table.items():
            assert english.isascii()
            assert english.isalpha()
            assert word != english
            assert word == word.lower()
            assert word.replace("'", "").isalpha()
