"""Common English words in Spanish, French and German, one word for one."""

__all__ = ["LANGUAGES", "TRANSLATIONS"]

LANGUAGES = ("french", "german", "spanish")
"""The languages that English words are put into."""

# english spanish french german
TABLE = """
the el le der; a un un ein; an un un ein; and y et und; of de de von; to a à zu; in en dans in; is es est ist;
was era était war; are son sont sind; were eran étaient waren; be ser être sein; been sido été gewesen;
has tiene a hat; have tienen ont haben; had tenía avait hatte; it ello il es; its su son sein; he él il er;
she ella elle sie; they ellos ils sie; we nosotros nous wir; you tú vous du; i yo je ich; his su son sein;
her su sa ihr; their sus leurs ihre; our nuestro notre unser; my mi mon mein; your tu votre dein; this este ce dies;
that que que dass; these estos ces diese; those esos ceux jene; which cual lequel welche; who quien qui wer;
what qué quoi was; where donde où wo; when cuando quand wann; why porqué pourquoi warum; how cómo comment wie;
for para pour für; with con avec mit; from desde depuis aus; by por par durch; at en à bei; on sobre sur auf;
as como comme als; but pero mais aber; or o ou oder; not no pas nicht; no no non kein; if si si wenn;
because porque parce weil; so así donc so; than que que als; then entonces alors dann; also también aussi auch;
only solo seulement nur; very muy très sehr; more más plus mehr; most mayoría plupart meisten;
many muchos beaucoup viele; much mucho beaucoup viel; some algunos quelques einige; few pocos peu wenige;
all todos tous alle; both ambos deux beide; each cada chaque jede; every cada chaque jeder; other otro autre andere;
another otro autre andere; such tal tel solche; same mismo même gleiche; first primero premier erste;
second segundo deuxième zweite; third tercero troisième dritte; last último dernier letzte;
next próximo prochain nächste; one uno un eins; two dos deux zwei; three tres trois drei; four cuatro quatre vier;
five cinco cinq fünf; six seis six sechs; seven siete sept sieben; eight ocho huit acht; nine nueve neuf neun;
ten diez dix zehn; hundred cien cent hundert; thousand mil mille tausend; can puede peut kann;
could podía pouvait konnte; will va va wird; would querría voudrait würde; may puede peut darf; must debe doit muss;
should debería devrait sollte; do hacer faire tun; does hace fait tut; did hizo fit tat; made hecho fait gemacht;
make hacer faire machen; said dijo dit sagte; say decir dire sagen; see ver voir sehen; seen visto vu gesehen;
know saber savoir wissen; known conocido connu bekannt; called llamado appelé genannt; used usado utilisé benutzt;
use usar utiliser benutzen; found encontrado trouvé gefunden; find encontrar trouver finden; give dar donner geben;
given dado donné gegeben; take tomar prendre nehmen; taken tomado pris genommen; came vino vint kam;
come venir venir kommen; go ir aller gehen; went fue alla ging; work trabajo travail arbeit; works obras œuvres werke;
live vivir vivre leben; lived vivía vivait lebte; born nacido né geboren; died murió mourut starb;
death muerte mort tod; life vida vie leben; man hombre homme mann; men hombres hommes männer; woman mujer femme frau;
women mujeres femmes frauen; child niño enfant kind; children niños enfants kinder; people gente gens leute;
family familia famille familie; father padre père vater; mother madre mère mutter; son hijo fils sohn;
daughter hija fille tochter; brother hermano frère bruder; sister hermana sœur schwester; friend amigo ami freund;
king rey roi könig; queen reina reine königin; time tiempo temps zeit; year año année jahr; years años années jahre;
day día jour tag; days días jours tage; night noche nuit nacht; week semana semaine woche; month mes mois monat;
hour hora heure stunde; century siglo siècle jahrhundert; today hoy aujourd'hui heute; now ahora maintenant jetzt;
before antes avant vor; after después après nach; during durante pendant während; since desde depuis seit;
until hasta jusque bis; between entre entre zwischen; under bajo sous unter; over encima dessus über;
into dentro dedans hinein; through mediante travers durch; against contra contre gegen; without sin sans ohne;
about sobre environ über; near cerca près nahe; here aquí ici hier; there allí là dort; world mundo monde welt;
country país pays land; city ciudad ville stadt; town pueblo bourg stadt; house casa maison haus;
home hogar foyer heim; street calle rue straße; road camino route weg; church iglesia église kirche;
school escuela école schule; university universidad université universität; state estado état staat;
government gobierno gouvernement regierung; law ley loi gesetz; war guerra guerre krieg; peace paz paix frieden;
army ejército armée heer; power poder pouvoir macht; party partido parti partei;
president presidente président präsident; language lengua langue sprache; word palabra mot wort;
words palabras mots wörter; name nombre nom name; book libro livre buch; books libros livres bücher;
story historia histoire geschichte; history historia histoire geschichte; music música musique musik;
song canción chanson lied; film película film film; art arte art kunst; game juego jeu spiel;
play jugar jouer spielen; water agua eau wasser; river río rivière fluss; sea mar mer meer; lake lago lac see;
mountain montaña montagne berg; island isla île insel; land tierra terre land; earth tierra terre erde;
sun sol soleil sonne; moon luna lune mond; star estrella étoile stern; air aire air luft; fire fuego feu feuer;
stone piedra pierre stein; tree árbol arbre baum; animal animal animal tier; animals animales animaux tiere;
horse caballo cheval pferd; dog perro chien hund; cat gato chat katze; bird pájaro oiseau vogel;
fish pez poisson fisch; food comida nourriture essen; bread pan pain brot; wine vino vin wein; milk leche lait milch;
hand mano main hand; head cabeza tête kopf; eye ojo œil auge; eyes ojos yeux augen; heart corazón cœur herz;
body cuerpo corps körper; blood sangre sang blut; white blanco blanc weiß; black negro noir schwarz;
red rojo rouge rot; green verde vert grün; blue azul bleu blau; good bueno bon gut; bad malo mauvais schlecht;
great grande grand groß; large grande grand groß; small pequeño petit klein; little pequeño petit klein;
big grande gros groß; long largo long lang; short corto court kurz; high alto haut hoch; low bajo bas niedrig;
old viejo vieux alt; new nuevo nouveau neu; young joven jeune jung; early temprano tôt früh; late tarde tard spät;
north norte nord norden; south sur sud süden; east este est osten; west oeste ouest westen;
left izquierda gauche links; right derecha droite rechts; part parte partie teil; place lugar lieu ort;
way manera manière weise; thing cosa chose ding; things cosas choses dinge; number número nombre zahl;
group grupo groupe gruppe; system sistema système system; order orden ordre ordnung; form forma forme form;
example ejemplo exemple beispiel; end fin fin ende; beginning comienzo début anfang; half medio moitié hälfte;
side lado côté seite; money dinero argent geld; price precio prix preis; trade comercio commerce handel;
science ciencia science wissenschaft; theory teoría théorie theorie; question pregunta question frage;
answer respuesta réponse antwort; problem problema problème problem; reason razón raison grund; idea idea idée idee;
truth verdad vérité wahrheit; love amor amour liebe; strong fuerte fort stark; free libre libre frei;
important importante important wichtig; different diferente différent verschieden; possible posible possible möglich;
often frecuentemente souvent oft; always siempre toujours immer; never nunca jamais nie; again otra encore wieder;
still todavía encore noch; even incluso même sogar; well bien bien gut; however aunque cependant jedoch;
while mientras pendant während; population población population bevölkerung; later después ensuite später;
several varios plusieurs mehrere
"""


def _translations() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
    for entry in TABLE.split(";"):
        english, spanish, french, german = entry.split()
        for language, word in (("french", french), ("german", german), ("spanish", spanish)):
            if word != english:
                found[language][english] = word
    return found


TRANSLATIONS = _translations()
"""By language, the translation of each English word that has another form there; all in lower case."""
