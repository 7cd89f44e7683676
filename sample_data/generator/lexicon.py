"""Every word form of the five languages, listed by hand: nothing is inflected by rule except Arabic's article.

Columns are named in each class. Past tense throughout; Arabic, Russian forms are for one fixed gender per person.
"""

from typing import NamedTuple

LANGUAGES = ("en", "ar", "zh", "ru", "tr")


class Person(NamedTuple):
    """A subject, and the same person as a companion ("with the nurse")."""

    en: str
    ar: str  # definite
    zh: str
    ru: str  # nominative
    tr: str
    ru_with: str  # instrumental, with its preposition
    tr_with: str  # instrumental
    feminine: bool  # in Arabic and Russian alike


class Action(NamedTuple):
    """A transitive verb; the masculine and feminine forms of Arabic and Russian."""

    en: str
    ar_m: str
    ar_f: str
    zh: str
    ru_m: str
    ru_f: str
    tr: str


class Thing(NamedTuple):
    """An inanimate object with the forms that determiners and numerals ask for."""

    en: str
    en_plural: str
    ar: str
    ar_accusative: str  # indefinite
    ar_plural: str  # after 3-10
    ar_gender: str  # m, f
    zh: str
    zh_measure: str
    ru_gender: str  # m, f, n
    ru: str  # accusative singular
    ru_few: str  # genitive singular, after 3 and 4
    ru_many: str  # genitive plural, after 5
    tr: str
    tr_accusative: str


class Quality(NamedTuple):
    """An adjective; Russian in the accusative of inanimate nouns."""

    en: str
    ar_m: str
    ar_f: str
    ar_m_accusative: str  # indefinite
    zh: str
    ru_m: str
    ru_f: str
    ru_n: str
    ru_plural: str
    ru_genitive: str  # plural
    tr: str


class Numeral(NamedTuple):
    """3 to 5; in Arabic the form with -a goes with masculine nouns."""

    en: str
    ar_with_m: str
    ar_with_f: str
    zh: str
    ru: str
    ru_few: bool  # takes the genitive singular
    tr: str


class Phrase(NamedTuple):
    """A place or a time: the same words wherever they stand."""

    en: str
    ar: str
    zh: str
    ru: str
    tr: str


PEOPLE = [
    Person("the man", "الرجل", "男人", "мужчина", "adam", "с мужчиной", "adamla", False),
    Person("the woman", "المرأة", "女人", "женщина", "kadın", "с женщиной", "kadınla", True),
    Person("the teacher", "المعلمة", "老师", "учительница", "öğretmen", "с учительницей", "öğretmenle", True),
    Person("the student", "الطالب", "学生", "студент", "öğrenci", "со студентом", "öğrenciyle", False),
    Person("the doctor", "الطبيب", "医生", "врач", "doktor", "с врачом", "doktorla", False),
    Person("the nurse", "الممرضة", "护士", "медсестра", "hemşire", "с медсестрой", "hemşireyle", True),
    Person("the farmer", "الفلاح", "农民", "фермер", "çiftçi", "с фермером", "çiftçiyle", False),
    Person("the king", "الملك", "国王", "король", "kral", "с королём", "kralla", False),
    Person("the queen", "الملكة", "王后", "королева", "kraliçe", "с королевой", "kraliçeyle", True),
    Person("the grandmother", "الجدة", "奶奶", "бабушка", "büyükanne", "с бабушкой", "büyükanneyle", True),
    Person("the cook", "الطباخ", "厨师", "повар", "aşçı", "с поваром", "aşçıyla", False),
    Person("the writer", "الكاتبة", "作家", "писательница", "yazar", "с писательницей", "yazarla", True),
]

ACTIONS = [
    Action("bought", "اشترى", "اشترت", "买了", "купил", "купила", "satın aldı"),
    Action("sold", "باع", "باعت", "卖了", "продал", "продала", "sattı"),
    Action("saw", "رأى", "رأت", "看见了", "увидел", "увидела", "gördü"),
    Action("found", "وجد", "وجدت", "找到了", "нашёл", "нашла", "buldu"),
    Action("lost", "فقد", "فقدت", "弄丢了", "потерял", "потеряла", "kaybetti"),
    Action("hid", "أخفى", "أخفت", "藏了", "спрятал", "спрятала", "sakladı"),
    Action("drew", "رسم", "رسمت", "画了", "нарисовал", "нарисовала", "çizdi"),
    Action("chose", "اختار", "اختارت", "选了", "выбрал", "выбрала", "seçti"),
    Action("showed", "عرض", "عرضت", "展示了", "показал", "показала", "gösterdi"),
    Action("received", "استلم", "استلمت", "收到了", "получил", "получила", "teslim aldı"),
]

THINGS = [
    Thing(*line.replace("|", " ").split())
    for line in """
book books | كتاب كتابا كتب m | 书 本 | f книгу книги книг | kitap kitabı
picture pictures | صورة صورة صور f | 画 幅 | f картину картины картин | resim resmi
chair chairs | كرسي كرسيا كراسي m | 椅子 把 | m стул стула стульев | sandalye sandalyeyi
box boxes | صندوق صندوقا صناديق m | 箱子 个 | f коробку коробки коробок | kutu kutuyu
hat hats | قبعة قبعة قبعات f | 帽子 顶 | f шляпу шляпы шляп | şapka şapkayı
lamp lamps | مصباح مصباحا مصابيح m | 灯 盏 | f лампу лампы ламп | lamba lambayı
carpet carpets | سجادة سجادة سجادات f | 地毯 块 | m ковёр ковра ковров | halı halıyı
key keys | مفتاح مفتاحا مفاتيح m | 钥匙 把 | m ключ ключа ключей | anahtar anahtarı
bicycle bicycles | دراجة دراجة دراجات f | 自行车 辆 | m велосипед велосипеда велосипедов | bisiklet bisikleti
shirt shirts | قميص قميصا قمصان m | 衬衫 件 | f рубашку рубашки рубашек | gömlek gömleği
mirror mirrors | مرآة مرآة مرايا f | 镜子 面 | n зеркало зеркала зеркал | ayna aynayı
ring rings | خاتم خاتما خواتم m | 戒指 枚 | n кольцо кольца колец | yüzük yüzüğü
""".strip().splitlines()
]

QUALITIES = [
    Quality(*line.replace("|", " ").split())
    for line in """
red | أحمر حمراء أحمر | 红色的 | красный красную красное красные красных | kırmızı
green | أخضر خضراء أخضر | 绿色的 | зелёный зелёную зелёное зелёные зелёных | yeşil
black | أسود سوداء أسود | 黑色的 | чёрный чёрную чёрное чёрные чёрных | siyah
big | كبير كبيرة كبيرا | 大 | большой большую большое большие больших | büyük
small | صغير صغيرة صغيرا | 小 | маленький маленькую маленькое маленькие маленьких | küçük
new | جديد جديدة جديدا | 新 | новый новую новое новые новых | yeni
old | قديم قديمة قديما | 旧 | старый старую старое старые старых | eski
expensive | ثمين ثمينة ثمينا | 昂贵的 | дорогой дорогую дорогое дорогие дорогих | pahalı
""".strip().splitlines()
]

NUMERALS = [
    Numeral("three", "ثلاثة", "ثلاث", "三", "три", True, "üç"),
    Numeral("four", "أربعة", "أربع", "四", "четыре", True, "dört"),
    Numeral("five", "خمسة", "خمس", "五", "пять", False, "beş"),
]

PLACES = [
    Phrase("at the market", "في السوق", "在市场", "на рынке", "pazarda"),
    Phrase("in the garden", "في الحديقة", "在花园里", "в саду", "bahçede"),
    Phrase("at school", "في المدرسة", "在学校", "в школе", "okulda"),
    Phrase("in the hospital", "في المستشفى", "在医院", "в больнице", "hastanede"),
    Phrase("at home", "في البيت", "在家里", "дома", "evde"),
    Phrase("at the station", "في المحطة", "在车站", "на вокзале", "istasyonda"),
    Phrase("in the kitchen", "في المطبخ", "在厨房", "на кухне", "mutfakta"),
    Phrase("in the library", "في المكتبة", "在图书馆", "в библиотеке", "kütüphanede"),
    Phrase("at the restaurant", "في المطعم", "在餐厅", "в ресторане", "restoranda"),
    Phrase("in the village", "في القرية", "在村里", "в деревне", "köyde"),
]

TIMES = [
    Phrase("yesterday", "أمس", "昨天", "вчера", "dün"),
    Phrase("last week", "الأسبوع الماضي", "上周", "на прошлой неделе", "geçen hafta"),
    Phrase("this morning", "هذا الصباح", "今天早上", "сегодня утром", "bu sabah"),
    Phrase("last year", "العام الماضي", "去年", "в прошлом году", "geçen yıl"),
    Phrase("on Monday", "يوم الاثنين", "星期一", "в понедельник", "pazartesi günü"),
    Phrase("in the evening", "في المساء", "晚上", "вечером", "akşamleyin"),
    Phrase("at night", "في الليل", "夜里", "ночью", "geceleyin"),
    Phrase("in winter", "في الشتاء", "冬天", "зимой", "kışın"),
]
